"""SphereFace2: one binary classifier per speaker instead of a softmax over all of them.

Wen, Liu, Weller, Raj and Singh, "SphereFace2: binary classification is all you need for deep face
recognition", ICLR 2022 (arXiv 2108.01513), equation 7 with margin type C and A; for speakers Han,
Chen and Qian, "Exploring binary classification loss for speaker verification training", ICASSP
2023 (arXiv 2307.08205).

Shapes: B batch, D embedding, K classes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.losses._common import (
    LossOutput,
    accuracy,
    cosines,
    in_float32,
    mean_loss,
    random_cosines,
    require_shapes,
)
from glottis.losses._registry import register_loss


class SphereFace2Config(Config):
    """Options of SphereFace2."""

    margin: float = Field(0.2, ge=0, lt=1)
    """added to the similarity of other classes and taken from that of the own class (C), or
    radians added to or taken from the angle (A)"""
    margin_type: Literal["C", "A"] = "C"
    """additive on the similarity, or on the angle"""
    scale: float = Field(32.0, gt=0)
    """r, factor of the similarities"""
    balance: float = Field(0.7, gt=0, lt=1)
    """lambda, weight of the own class; each of the others has 1 - lambda"""
    sharpness: float = Field(3.0, ge=1)
    """t of g(c) = 2 ((c + 1) / 2)^t - 1, which spreads the similarities of different speakers"""
    initial_bias: float = 0.0
    """learned offset of all classifiers, at the start"""


@register_loss("sphereface2", SphereFace2Config)
class SphereFace2(nn.Module):
    """Embeddings (B, D), labels (B,) -> sum of K weighted binary cross-entropies, over the scale.

    lambda / r * softplus(-(r (g(cos own) - m) + b))
    + (1 - lambda) / r * sum over the others of softplus(r (g(cos) + m) + b); Wen et al., ICLR
    2022.  Centres initialised Xavier normal.
    """

    reference = "Wen et al., ICLR 2022"
    task = "speaker"
    batch = "flat"
    input = "embedding"

    def __init__(self, config: SphereFace2Config, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.margin, self.margin_type = config.margin, config.margin_type
        self.scale, self.balance, self.sharpness = config.scale, config.balance, config.sharpness
        self.bias = nn.Parameter(torch.tensor(config.initial_bias))
        self.centres = nn.Parameter(torch.empty(num_classes, embedding_size))
        nn.init.xavier_normal_(self.centres)

    def set_margin(self, margin: float) -> None:
        """Another margin from the next step on."""
        self.margin = margin

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_shapes(x, labels, 2, self.embedding_size)
        cosine = cosines(x, self.centres)
        losses = self.item_losses(cosine, labels)
        return LossOutput(mean_loss(losses, weights), {"accuracy": accuracy(cosine, labels)})

    def item_losses(self, cosine: Tensor, labels: Tensor) -> Tensor:
        """(B, K) cosines, (B,) labels -> (B,) losses."""
        target = labels[:, None]
        bias = self.bias.to(cosine.dtype)
        own = -(self.scale * self._similarity(cosine.gather(1, target), -1.0) + bias)
        others = self.scale * self._similarity(cosine, 1.0) + bias
        others = functional.softplus(others).scatter(1, target, 0.0).sum(dim=1)
        own = functional.softplus(own)[:, 0]
        return (self.balance * own + (1 - self.balance) * others) / self.scale

    def _similarity(self, cosine: Tensor, sign: float) -> Tensor:
        """g of the cosine with the margin; sign -1 makes it smaller, +1 larger."""
        margin = self.margin
        if self.margin_type == "A":
            sine = (1.0 - cosine.square()).clamp_min(1e-6).sqrt()
            # the angle stays within 0 .. pi, where the cosine falls
            limit = math.cos(margin)
            shifted = cosine * math.cos(margin) + sign * sine * math.sin(margin)
            inside = cosine < limit if sign > 0 else cosine > -limit
            cosine = torch.where(inside, shifted, torch.full_like(shifted, sign))
        half = ((cosine + 1) / 2).clamp_min(1e-6)
        similarity = 2 * half**self.sharpness - 1
        return similarity + sign * margin if self.margin_type == "C" else similarity

    def chance_loss(self, num_classes: int) -> float:
        """Random embeddings and centres: the mean over 32 random draws of the cosines."""
        return self._expected(random_cosines(self.embedding_size, num_classes)[..., 0])

    def collapse_loss(self, num_classes: int) -> float:
        """All embeddings and centres on one line."""
        return self._expected(torch.ones(1, num_classes, dtype=torch.float64))

    def _expected(self, cosine: Tensor) -> float:
        own = torch.zeros(len(cosine), dtype=torch.long)
        return float(self.item_losses(cosine, own).mean().detach())
