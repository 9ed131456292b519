"""Softmax cross-entropy over the training speakers: a linear classifier on the embedding."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor, nn

from glottis.config import Config
from glottis.losses._common import (
    LossOutput,
    accuracy,
    class_losses,
    in_float32,
    mean_loss,
    require_shapes,
)
from glottis.losses._registry import register_loss


class SoftmaxConfig(Config):
    """Options of softmax."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """share of the target that is spread over all classes; Szegedy et al., CVPR 2016, section 7"""
    focal_gamma: float = Field(0.0, ge=0)
    """discount of items that are already right, (1 - p)^gamma; Lin et al., ICCV 2017"""


@register_loss("softmax", SoftmaxConfig)
class Softmax(nn.Module):
    """Embeddings (B, D), labels (B,) in 0..K-1 -> mean of -ln softmax(W x + b)[label].

    Source: the usual multinomial logistic regression, e.g. Snyder et al., "X-vectors", ICASSP
    2018, section 2.2.  Classifier initialised as a torch linear layer.
    """

    reference = "Snyder et al., ICASSP 2018"
    task = "speaker"
    batch = "flat"
    input = "embedding"

    def __init__(self, config: SoftmaxConfig, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.label_smoothing, self.focal_gamma = config.label_smoothing, config.focal_gamma
        self.classifier = nn.Linear(embedding_size, num_classes)

    @in_float32
    def scores(self, x: Tensor) -> Tensor:
        """(B, D) embeddings -> (B, K) logits."""
        logits: Tensor = self.classifier(x)
        return logits

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_shapes(x, labels, 2, self.embedding_size)
        logits = self.classifier(x)
        losses = class_losses(logits, labels, self.label_smoothing, self.focal_gamma)
        return LossOutput(mean_loss(losses, weights), {"accuracy": accuracy(logits, labels)})

    def chance_loss(self, num_classes: int) -> float:
        """(1 - 1/K)^gamma ln K: all classes equally likely."""
        return float((1 - 1 / num_classes) ** self.focal_gamma * math.log(num_classes))

    def collapse_loss(self, num_classes: int) -> float:
        """As chance: one embedding for everybody can do no better with balanced labels."""
        return self.chance_loss(num_classes)
