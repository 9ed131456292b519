"""Generalised end-to-end loss (GE2E).

Wan, Wang, Papir and Lopez Moreno, "Generalized end-to-end loss for speaker verification", ICASSP
2018 (arXiv 1710.10467), equations 5, 6, 8 and 9.

Shapes: P speakers in a batch, K utterances of each, D embedding.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.losses._common import (
    LossOutput,
    accuracy,
    cosines,
    cross_entropy_against,
    in_float32,
    log_mean_exp_cosine,
    mean_loss,
    positive,
    require_groups,
)
from glottis.losses._registry import register_loss


class Ge2eConfig(Config):
    """Options of the generalised end-to-end loss."""

    initial_scale: float = Field(10.0, gt=0)
    """learned factor of the cosines, at the start"""
    initial_bias: float = -5.0
    """learned offset of the cosines, at the start; it cancels in the softmax"""
    clamp_cosines: bool = False
    """raise negative cosines to 1e-6 as the public trainer does: about half of the pairs of a new
    model then have no gradient; only for comparison with it"""


@register_loss("ge2e", Ge2eConfig)
class Ge2e(nn.Module):
    """Embeddings (P, K, D), K >= 2 utterances of P different speakers, labels (P,) -> loss.

    Every utterance against the mean of every speaker, cross-entropy of w cos + b with w kept
    positive; from the mean of its own speaker the utterance itself is left out.  Wan et al.,
    ICASSP 2018, equation 6 with the exclusive centroid of equation 8.
    """

    reference = "Wan et al., ICASSP 2018"
    task = "speaker"
    batch = "grouped"
    input = "embedding"

    def __init__(self, config: Ge2eConfig, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.clamp_cosines = config.clamp_cosines
        self.scale = nn.Parameter(torch.tensor(config.initial_scale))
        self.bias = nn.Parameter(torch.tensor(config.initial_bias))

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_groups(x, labels, self.embedding_size)
        speakers, size = x.shape[:2]
        others = (x.sum(dim=1, keepdim=True) - x) / (size - 1)  # (P, K, D), without itself
        own_cosine = functional.cosine_similarity(x, others, dim=-1, eps=1e-6)  # (P, K)
        cosine = cosines(x.flatten(0, 1), x.mean(dim=1))  # (P K, P)
        own = torch.arange(speakers, device=x.device).repeat_interleave(size)
        cosine = cosine.scatter(1, own[:, None], own_cosine.reshape(-1, 1))
        if self.clamp_cosines:
            cosine = cosine.clamp_min(1e-6)
        logits = cosine * positive(self.scale) + self.bias
        losses = functional.cross_entropy(logits, own, reduction="none")
        return LossOutput(
            mean_loss(losses.view(speakers, size).mean(dim=1), weights),
            {"accuracy": accuracy(cosine, own)},
        )

    def chance_loss(self, num_classes: int) -> float:
        """num_classes: P, the speakers in a batch.  ln(1 + (P - 1) E[exp(w cos)])."""
        spread = log_mean_exp_cosine(float(self.scale.detach()), self.embedding_size)
        return cross_entropy_against(num_classes - 1, spread)

    def collapse_loss(self, num_classes: int) -> float:
        """ln P, P speakers in a batch: all embeddings equal."""
        return math.log(num_classes)
