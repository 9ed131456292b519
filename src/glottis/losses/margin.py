"""Margin softmax on cosines: AM and AAM, always in float32.

AM: Wang et al., "Additive margin softmax for face verification", IEEE SPL 2018 (and CosFace,
Wang et al., CVPR 2018).  AAM: Deng et al., "ArcFace", CVPR 2019, equation 3.

logits = scale * cos of the embedding with every class centre; the own class gets a handicap, which
trains a gap between classes.  Accuracy is that of the plain cosines: with the margin inside it
would call correct embeddings wrong.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from glottis.config import Config
from glottis.losses._common import (
    LossOutput,
    accuracy,
    class_losses,
    cosines,
    cross_entropy_against,
    in_float32,
    log_mean_exp_cosine,
    mean_loss,
    require_shapes,
)
from glottis.losses._registry import register_loss

_MIN_SINE_SQUARED = 1e-6  # cos beyond 1 - 5e-7: the slope of the sine is bounded by 1000


class MarginConfig(Config):
    """What all margin losses have."""

    scale: float = Field(30.0, gt=0)
    """factor of all cosines"""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """share of the target that is spread over all classes; Szegedy et al., CVPR 2016, section 7"""
    focal_gamma: float = Field(0.0, ge=0)
    """discount of items that are already right, (1 - p)^gamma; Lin et al., ICCV 2017"""


class AmSoftmaxConfig(MarginConfig):
    """Options of additive margin softmax."""

    margin: float = Field(0.2, ge=0, lt=2)
    """subtracted from the cosine of the own class"""


class AamSoftmaxConfig(MarginConfig):
    """Options of additive angular margin softmax."""

    margin: float = Field(0.2, ge=0, lt=math.pi / 2)
    """radians added to the angle of the own class"""
    easy_margin: bool = False
    """margin only within 90 degrees of the own class; else a straight line beyond pi - margin"""


class MarginSoftmax(nn.Module):
    """Base of the margin losses; a subclass says what the margin does to a target cosine.

    ``set_margin`` may be called between steps (a margin schedule).
    """

    task = "speaker"
    batch = "flat"
    input = "embedding"

    def __init__(
        self, margin: float, config: MarginConfig, embedding_size: int, num_classes: int
    ) -> None:
        super().__init__()
        self.margin, self.scale = margin, config.scale
        self.label_smoothing, self.focal_gamma = config.label_smoothing, config.focal_gamma
        self.embedding_size = embedding_size
        self.centres = nn.Parameter(torch.empty(num_classes, embedding_size))
        nn.init.xavier_normal_(self.centres)

    def set_margin(self, margin: float) -> None:
        """Another margin from the next step on."""
        self.margin = margin

    def with_margin(self, cosine: Tensor) -> Tensor:
        """What replaces the cosine with the own class, any shape."""
        raise NotImplementedError

    def margin_cost(self) -> float:
        """How much lower the own class of a random embedding scores, before the scale."""
        raise NotImplementedError

    def logits(self, cosine: Tensor, labels: Tensor) -> Tensor:
        """(B, K) cosines -> (B, K) scaled logits with the margin in the own class."""
        target = labels[:, None]
        return self.scale * cosine.scatter(1, target, self.with_margin(cosine.gather(1, target)))

    def item_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(B, K) logits with the margin, (B,) labels -> (B,) losses."""
        return class_losses(logits, labels, self.label_smoothing, self.focal_gamma)

    @in_float32
    def scores(self, x: Tensor) -> Tensor:
        """(B, D) embeddings -> (B, K) scaled cosines, without a margin."""
        return self.scale * cosines(x, self.centres)

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_shapes(x, labels, 2, self.embedding_size)
        cosine = cosines(x, self.centres)
        losses = self.item_losses(self.logits(cosine, labels), labels)
        return LossOutput(mean_loss(losses, weights), {"accuracy": accuracy(cosine, labels)})

    def chance_loss(self, num_classes: int) -> float:
        """Random embeddings and centres: ln(K - 1) + ln E[exp(s cos)] + s * margin cost.

        ln E[exp(s cos)] is s^2 / (2 D) while s is small against D.
        """
        spread = log_mean_exp_cosine(self.scale, self.embedding_size)
        cost = self.scale * self.margin_cost()
        return self._smoothed(cross_entropy_against(num_classes - 1, spread + cost), cost)

    def collapse_loss(self, num_classes: int) -> float:
        """All embeddings and centres on one line: ln(K - 1) + s (1 - cosine with margin)."""
        one = float(self.with_margin(torch.ones(1, dtype=torch.float64)))
        cost = self.scale * (1.0 - one)
        return self._smoothed(cross_entropy_against(num_classes - 1, cost), cost)

    def _smoothed(self, loss: float, cost: float) -> float:
        """With label smoothing, where only the own class pays the margin ``cost``; and focal."""
        right = math.exp(-loss)
        smoothed = loss - self.label_smoothing * cost * (1 - 1 / len(self.centres))
        return float((1 - right) ** self.focal_gamma * smoothed)


@register_loss("am_softmax", AmSoftmaxConfig)
class AmSoftmax(MarginSoftmax):
    """Embeddings (B, D), labels (B,) -> cross-entropy of s (cos - m [own class]).

    Wang et al., IEEE SPL 2018.  Centres initialised Xavier normal.
    """

    reference = "Wang et al., IEEE SPL 2018"

    def __init__(self, config: AmSoftmaxConfig, embedding_size: int, num_classes: int) -> None:
        super().__init__(config.margin, config, embedding_size, num_classes)

    def with_margin(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin

    def margin_cost(self) -> float:
        return self.margin


@register_loss("aam_softmax", AamSoftmaxConfig)
class AamSoftmax(MarginSoftmax):
    """Embeddings (B, D), labels (B,) -> cross-entropy of s cos(angle + m [own class]).

    Deng et al., CVPR 2019, equation 3.  Beyond an angle of pi - m, where cos(angle + m) would rise
    again, the target continues as cos - m sin(m); with ``easy_margin`` there is no margin beyond 90
    degrees.  The sine is kept above 1e-3, so that the gradient is finite at cos = 1 and -1.
    Centres initialised Xavier normal.
    """

    reference = "Deng et al., CVPR 2019"

    def __init__(self, config: AamSoftmaxConfig, embedding_size: int, num_classes: int) -> None:
        super().__init__(config.margin, config, embedding_size, num_classes)
        self.easy_margin = config.easy_margin

    def with_margin(self, cosine: Tensor) -> Tensor:
        margin = self.margin
        sine = (1.0 - cosine.square()).clamp_min(_MIN_SINE_SQUARED).sqrt()
        shifted = cosine * math.cos(margin) - sine * math.sin(margin)
        if self.easy_margin:
            return torch.where(cosine > 0, shifted, cosine)
        return torch.where(cosine > -math.cos(margin), shifted, cosine - margin * math.sin(margin))

    def margin_cost(self) -> float:
        # easy margin: only the half of the random targets that lies within 90 degrees pays
        full = math.sin(self.margin)
        return full / 2 if self.easy_margin else full
