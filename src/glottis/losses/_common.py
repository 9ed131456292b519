"""What every loss does the same way: float32, unit vectors, means, accuracy, expected values.

Shapes: B batch, D embedding, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import torch
from scipy.special import hyp0f1
from torch import Tensor
from torch.nn import functional

from glottis.errors import ModelError
from glottis.rng import generator

F = TypeVar("F", bound=Callable[..., Any])


class LossOutput(NamedTuple):
    """loss: a scalar with a gradient.  stats: detached scalars, rates as fractions."""

    loss: Tensor
    stats: dict[str, Tensor]


def in_float32(forward: F) -> F:
    """Decorator for forward(self, x, ...): outside autocast, half-precision ``x`` as float32.

    A margin head in half precision is wrong: a cosine of 0.998 rounds to 1 in bfloat16, where the
    slope of sqrt(1 - cos^2) is infinite (rule O10).
    """

    @wraps(forward)
    def wrapped(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            if x.dtype in (torch.float16, torch.bfloat16):
                x = x.float()
            return forward(self, x, *args, **kwargs)

    return wrapped  # type: ignore[return-value]


def require_shapes(x: Tensor, labels: Tensor, ndim: int, size: int) -> None:
    """Raise `ModelError` unless x has ``ndim`` axes, the last of ``size``, and a label per item."""
    if x.ndim != ndim or x.shape[-1] != size or labels.shape != x.shape[:1]:
        raise ModelError(
            f"the loss was given {tuple(x.shape)} with labels {tuple(labels.shape)}",
            why="a loss of wrongly shaped batches trains on something else than it says",
            fix=f"this loss takes {ndim} axes, the last of size {size}, and one label per item",
        )


def require_groups(x: Tensor, labels: Tensor, size: int) -> None:
    """Raise `ModelError` unless x is (P, K, size) with K >= 2 and P labels."""
    require_shapes(x, labels, 3, size)
    if x.shape[1] < 2:
        raise ModelError(
            f"this loss compares utterances of a speaker, but each speaker has {x.shape[1]}",
            fix="use at least two utterances per speaker (batch.utterances)",
        )


def positive(scale: Tensor) -> Tensor:
    """A learned scale kept above 1e-6; the value is clamped and the slope is not, so that a scale
    that fell below zero can recover."""
    return scale + (scale.clamp_min(1e-6) - scale).detach()


def cosines(x: Tensor, centres: Tensor) -> Tensor:
    """Cosine of every row of x (B, D) with every centre (K, D) -> (B, K).

    A vector shorter than 1e-6 counts as that long: its gradient stays finite.
    """
    return functional.linear(
        functional.normalize(x, dim=-1, eps=1e-6), functional.normalize(centres, dim=-1, eps=1e-6)
    )


def class_losses(
    logits: Tensor, labels: Tensor, smoothing: float = 0.0, gamma: float = 0.0
) -> Tensor:
    """(B, K) logits, (B,) labels -> (B,) cross-entropies, smoothed, times (1 - p)^gamma.

    smoothing: share of the target spread over all classes (Szegedy et al., "Rethinking the
    Inception architecture", CVPR 2016, section 7).  gamma: p is the softmax probability of the own
    class (Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 4).
    """
    plain = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    if gamma == 0:
        return plain
    sharp = plain if smoothing == 0 else functional.cross_entropy(logits, labels, reduction="none")
    # 1 - p = -expm1(-ce), kept above 0 where a power below one has no slope
    return (-torch.expm1(-sharp)).clamp_min(1e-12) ** gamma * plain


def mean_loss(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over the items of weight * loss; weights w and 1 - w of two calls add up (mixup)."""
    return losses.mean() if weights is None else (losses * weights).mean()


def accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    """Fraction of items whose own class has the highest score, detached."""
    return (scores.detach().argmax(dim=-1) == labels).float().mean()


def log_mean_exp_cosine(scale: float, embedding_size: int) -> float:
    """ln E[exp(scale * c)] for the cosine c of two random directions in D dimensions.

    = ln 0F1(; D/2; scale^2 / 4), close to scale^2 / (2 D) while scale is small against D.
    """
    return float(math.log(hyp0f1(embedding_size / 2, scale * scale / 4)))


def random_cosines(embedding_size: int, num_classes: int, per_class: int = 1) -> Tensor:
    """(32, num_classes, per_class) cosines of random directions in D dimensions, always the same.

    For chance values that have no closed form.  In many dimensions a cosine is normal with a
    standard deviation of 1 / sqrt(D).
    """
    drawn = generator(0, "chance", num_classes).standard_normal((32, num_classes, per_class))
    return torch.from_numpy(drawn / math.sqrt(embedding_size)).clamp(-1, 1)


def cross_entropy_against(num_others: float, advantage: float) -> float:
    """Cross-entropy of a class against ``num_others`` classes that score ``advantage`` higher.

    ln(1 + num_others * exp(advantage)), without overflow.
    """
    if num_others <= 0:
        return 0.0
    total = math.log(num_others) + advantage
    return max(total, 0.0) + math.log1p(math.exp(-abs(total)))
