"""Distillation: what a student learns from the outputs of a teacher on the same clips.

Cosine: the directions of both embeddings.  KL: the class probabilities at a temperature; Hinton,
Vinyals and Dean, "Distilling the knowledge in a neural network", 2015 (arXiv 1503.02531), section
2.  Relational: the distances between the clips of a batch; Park, Kim, Lu and Cho, "Relational
knowledge distillation", CVPR 2019, section 3.2.1.

Shapes: B batch, D embedding, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from glottis.errors import ModelError


def cosine_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """(B, D) and (B, D) -> (B,): 1 - cosine, from 0 (same direction) to 2.

    The squared distance of unit vectors averaged over D is 2 / D of it: a weight that suits one
    silently switches the other off.
    """
    _require_alike(student, teacher)
    return 1 - functional.cosine_similarity(student.float(), teacher.float().detach(), eps=1e-6)


def kl_distillation(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Logits (B, K) and (B, K) -> (B,): T^2 KL(teacher || student) at temperature T.

    The factor keeps the size of the gradient when T changes.
    """
    _require_alike(student, teacher)
    own = functional.log_softmax(student.float() / temperature, dim=1)
    wanted = functional.log_softmax(teacher.float().detach() / temperature, dim=1)
    divergence = functional.kl_div(own, wanted, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * divergence


def relational_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Embeddings (B, D) and (B, D') -> (B,): Huber loss between the distances in the batch.

    Each side's distances are divided by their mean, so that size and scale of the embeddings do
    not matter; an item's value is its mean over the B - 1 others.
    """
    if len(student) != len(teacher) or len(student) < 2:
        raise ModelError(
            f"relational distillation compares pairs, but was given {len(student)} and "
            f"{len(teacher)} clips"
        )
    own, wanted = _distances(student.float()), _distances(teacher.float().detach())
    errors = functional.huber_loss(own, wanted, reduction="none")
    return errors.sum(dim=1) / (len(student) - 1)


def _distances(x: Tensor) -> Tensor:
    """(B, D) -> (B, B) Euclidean distances over their mean."""
    squared = (x[:, None] - x[None]).square().sum(dim=-1)
    other = 1 - torch.eye(len(x), device=x.device)
    distances = (squared + 1e-12).sqrt() * other  # the root has a slope at 0
    return distances / (distances.sum() / other.sum()).clamp_min(1e-6)


def _require_alike(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape or student.ndim != 2:
        raise ModelError(
            f"the student gives {tuple(student.shape)}, the teacher {tuple(teacher.shape)}",
            why="direction and class probabilities can only be compared at equal size",
            fix="use a student of the teacher's size, or relational distillation",
        )
