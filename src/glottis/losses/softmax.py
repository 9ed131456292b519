"""Softmax cross-entropy over the training speakers: a linear classifier on the embedding."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.losses._common import LossOutput, accuracy, in_float32, mean_loss, require_shapes
from glottis.losses._registry import register_loss


class SoftmaxConfig(Config):
    """Softmax has no options."""


@register_loss("softmax", SoftmaxConfig)
class Softmax(nn.Module):
    """Embeddings (B, D), labels (B,) in 0..K-1 -> mean of -ln softmax(W x + b)[label].

    Source: the usual multinomial logistic regression, e.g. Snyder et al., "X-vectors", ICASSP
    2018, section 2.2.  Classifier initialised as a torch linear layer.
    """

    task = "speaker"
    batch = "flat"
    input = "embedding"

    def __init__(self, config: SoftmaxConfig, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.classifier = nn.Linear(embedding_size, num_classes)

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_shapes(x, labels, 2, self.embedding_size)
        logits = self.classifier(x)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return LossOutput(mean_loss(losses, weights), {"accuracy": accuracy(logits, labels)})

    def chance_loss(self, num_classes: int) -> float:
        """ln K: all classes equally likely."""
        return math.log(num_classes)

    def collapse_loss(self, num_classes: int) -> float:
        """ln K: the best that one embedding for everybody can do with balanced labels."""
        return math.log(num_classes)
