"""Angular prototypical loss: find a speaker's other utterances by scaled cosine.

Chung et al., "In defence of metric learning for speaker recognition", Interspeech 2020
(arXiv 2003.11982), section 2.2.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.errors import ModelError
from glottis.losses._common import (
    LossOutput,
    accuracy,
    cosines,
    cross_entropy_against,
    in_float32,
    log_mean_exp_cosine,
    mean_loss,
    require_shapes,
)
from glottis.losses._registry import register_loss


class AngularPrototypicalConfig(Config):
    """Options of the angular prototypical loss."""

    initial_scale: float = Field(10.0, gt=0)
    """learned factor of the cosines, at the start"""
    initial_bias: float = -5.0
    """learned offset of the cosines, at the start; it cancels in the softmax"""


@register_loss("angular_prototypical", AngularPrototypicalConfig)
class AngularPrototypical(nn.Module):
    """Embeddings (P, K, D), K >= 2 utterances of P different speakers, labels (P,) -> loss.

    The first utterance is the query, the mean of the others its speaker's prototype; cross-entropy
    over the P prototypes of w cos + b, with w kept positive.  The labels only say that speakers
    differ.  Chung et al., Interspeech 2020, section 2.2.
    """

    task = "speaker"
    batch = "grouped"
    input = "embedding"

    def __init__(
        self, config: AngularPrototypicalConfig, embedding_size: int, num_classes: int
    ) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.scale = nn.Parameter(torch.tensor(config.initial_scale))
        self.bias = nn.Parameter(torch.tensor(config.initial_bias))

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_shapes(x, labels, 3, self.embedding_size)
        if x.shape[1] < 2:
            raise ModelError(
                f"a prototype needs another utterance, but each speaker has {x.shape[1]}",
                fix="use at least two utterances per speaker",
            )
        cosine = cosines(x[:, 0], x[:, 1:].mean(dim=1))  # query p against prototype q, (P, P)
        # the value is clamped and the slope is not: a scale that fell below zero can recover
        scale = self.scale + (self.scale.clamp_min(1e-6) - self.scale).detach()
        logits = cosine * scale + self.bias
        own = torch.arange(len(x), device=x.device)
        losses = functional.cross_entropy(logits, own, reduction="none")
        return LossOutput(mean_loss(losses, weights), {"accuracy": accuracy(cosine, own)})

    def chance_loss(self, num_classes: int) -> float:
        """num_classes: P, the speakers in a batch.  ln(1 + (P - 1) E[exp(w cos)])."""
        spread = log_mean_exp_cosine(float(self.scale.detach()), self.embedding_size)
        return cross_entropy_against(num_classes - 1, spread)

    def collapse_loss(self, num_classes: int) -> float:
        """ln P, P speakers in a batch: all embeddings equal."""
        return math.log(num_classes)
