"""Losses on the two logits of a countermeasure: class-weighted cross-entropy and focal loss.

Classes: 0 spoof, 1 bona fide.  Both losses are means weighted by class: they do not change with
the scale of the class weights, and focal loss with gamma = 0 is weighted cross-entropy.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.errors import ModelError
from glottis.losses._common import LossOutput, accuracy, in_float32, require_shapes
from glottis.losses._registry import register_loss

Positive = Annotated[float, Field(gt=0)]


class WeightedCrossEntropyConfig(Config):
    """Options of weighted cross-entropy."""

    class_weights: tuple[Positive, Positive] = (1.0, 1.0)
    """of (spoof, bona fide); AASIST was trained with (0.1, 0.9) on nine spoofs per bona fide"""


class FocalConfig(Config):
    """Options of focal loss."""

    gamma: float = Field(2.0, ge=0)
    """how strongly items that are already right are discounted; 0 = weighted cross-entropy"""
    alpha: tuple[Positive, Positive] = (1.0, 1.0)
    """class weights of (spoof, bona fide)"""


class _SpoofLoss(nn.Module):
    """A mean of item losses, weighted by class."""

    task = "spoof"
    batch = "flat"
    input = "logits"
    class_weights: Tensor

    def __init__(self, class_weights: tuple[float, float], num_classes: int) -> None:
        super().__init__()
        if num_classes != 2:
            raise ModelError(
                f"a countermeasure has the classes spoof and bona fide, not {num_classes}"
            )
        self.register_buffer("class_weights", torch.tensor(class_weights), persistent=False)

    def item_losses(self, cross_entropy: Tensor) -> Tensor:
        """(B,) cross-entropy of each item -> (B,) its loss before the class weight."""
        raise NotImplementedError

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_shapes(x, labels, 2, 2)
        share = self.class_weights.to(x)[labels]
        share = share / share.sum()
        if weights is not None:  # after the division: weights w and 1 - w of two calls add up
            share = share * weights
        losses = self.item_losses(functional.cross_entropy(x, labels, reduction="none"))
        return LossOutput((share * losses).sum(), {"accuracy": accuracy(x, labels)})

    def mass(self, labels: Tensor) -> Tensor:
        """What the mean divides by, the sum of the class weights of (B,) labels."""
        return self.class_weights[labels].sum()

    def collapse_loss(self, num_classes: int) -> float | None:
        """None: what a constant answer costs depends on the shares of the classes."""
        return None


@register_loss("weighted_cross_entropy", WeightedCrossEntropyConfig)
class WeightedCrossEntropy(_SpoofLoss):
    """Logits (B, 2), labels (B,) in {0 spoof, 1 bona fide} -> weighted mean cross-entropy.

    Sum of w[label] * ce over sum of w[label], the loss of Jung et al., "AASIST", ICASSP 2022.
    """

    reference = "Jung et al., ICASSP 2022"

    def __init__(
        self, config: WeightedCrossEntropyConfig, embedding_size: int, num_classes: int
    ) -> None:
        super().__init__(config.class_weights, num_classes)

    def item_losses(self, cross_entropy: Tensor) -> Tensor:
        return cross_entropy

    def chance_loss(self, num_classes: int) -> float:
        """ln K: all logits equal, whatever the class weights."""
        return math.log(num_classes)


@register_loss("focal", FocalConfig)
class Focal(_SpoofLoss):
    """Logits (B, 2), labels (B,) in {0 spoof, 1 bona fide} -> weighted mean of (1 - p)^gamma * ce.

    p is the softmax probability of the true class.  Lin et al., "Focal loss for dense object
    detection", ICCV 2017, equation 5; the mean is over the class weights alpha, not over the items.
    """

    reference = "Lin et al., ICCV 2017"

    def __init__(self, config: FocalConfig, embedding_size: int, num_classes: int) -> None:
        super().__init__(config.alpha, num_classes)
        self.gamma = config.gamma

    def item_losses(self, cross_entropy: Tensor) -> Tensor:
        # as class_losses, but the class weights are part of the mean
        wrong = (-torch.expm1(-cross_entropy)).clamp_min(1e-12)
        return wrong**self.gamma * cross_entropy

    def chance_loss(self, num_classes: int) -> float:
        """(1 - 1/K)^gamma ln K: all logits equal."""
        return math.pow(1.0 - 1.0 / num_classes, self.gamma) * math.log(num_classes)
