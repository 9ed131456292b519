"""AAM softmax with several centres per class, and a penalty for the most similar other classes.

Sub-centres: Deng et al., "Sub-center ArcFace: boosting face recognition by large-scale noisy web
faces", ECCV 2020, section 3.2.  Inter-top-k: Zhao et al., "The SpeakIn system for VoxCeleb speaker
recognition challange 2021" (arXiv 2109.01989), section 3.3.

Shapes: B batch, D embedding, K classes, C centres per class.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

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
from glottis.losses.margin import AamSoftmax, AamSoftmaxConfig


class SubCentreAamConfig(AamSoftmaxConfig):
    """Options of sub-centre AAM softmax with inter-top-k penalty."""

    centres: int = Field(3, ge=1)
    """centres per class: noisy labels and second voices gather at the others"""
    top_k: int = Field(5, ge=0)
    """how many of the most similar other classes are penalised; 0 = none"""
    top_k_margin: float = Field(0.06, ge=0, lt=math.pi / 2)
    """radians by which their angles are made smaller"""


@register_loss("sub_centre_aam", SubCentreAamConfig)
class SubCentreAam(AamSoftmax):
    """Embeddings (B, D), labels (B,) -> AAM on the best of C centres, top-k others pushed away.

    Deng et al., ECCV 2020; Zhao et al., 2021.  The cosine with a class is that with its nearest
    centre.  Centres (K C, D), those of one class together, initialised Xavier normal.
    """

    reference = "Deng et al., ECCV 2020; Zhao et al., 2021"

    def __init__(self, config: SubCentreAamConfig, embedding_size: int, num_classes: int) -> None:
        super().__init__(config, embedding_size, num_classes * config.centres)
        self.per_class, self.num_classes = config.centres, num_classes
        self.top_k, self.top_k_margin = config.top_k, config.top_k_margin

    def logits(self, cosine: Tensor, labels: Tensor) -> Tensor:
        """(B, K) cosines with the nearest centres -> (B, K) scaled logits with both margins."""
        if self.top_k > 0 and self.top_k_margin > 0 and cosine.shape[1] > 1:
            cosine = self._with_penalty(cosine, labels)
        return super().logits(cosine, labels)

    def _with_penalty(self, cosine: Tensor, labels: Tensor) -> Tensor:
        """cos(angle - m') for the top-k other classes; the angle stays above 0."""
        others = cosine.detach().scatter(1, labels[:, None], -torch.inf)
        top = others.topk(min(self.top_k, cosine.shape[1] - 1), dim=1).indices
        chosen, margin = cosine.gather(1, top), self.top_k_margin
        sine = (1.0 - chosen.square()).clamp_min(1e-6).sqrt()
        nearer = chosen * math.cos(margin) + sine * math.sin(margin)
        nearer = torch.where(chosen < math.cos(margin), nearer, torch.ones_like(nearer))
        return cosine.scatter(1, top, nearer)

    @in_float32
    def scores(self, x: Tensor) -> Tensor:
        """(B, D) embeddings -> (B, K) scaled cosines with the nearest centres, without a margin."""
        nearest = cosines(x, self.centres).view(len(x), -1, self.per_class).amax(dim=2)
        return self.scale * nearest

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_shapes(x, labels, 2, self.embedding_size)
        cosine = cosines(x, self.centres).view(len(x), -1, self.per_class).amax(dim=2)
        losses = self.item_losses(self.logits(cosine, labels), labels)
        return LossOutput(mean_loss(losses, weights), {"accuracy": accuracy(cosine, labels)})

    def chance_loss(self, num_classes: int) -> float:
        """Random embeddings and centres: the mean over 32 random draws of the cosines."""
        return self._expected(random_cosines(self.embedding_size, num_classes, self.per_class))

    def collapse_loss(self, num_classes: int) -> float:
        """All embeddings and centres on one line."""
        return self._expected(torch.ones(1, num_classes, 1, dtype=torch.float64))

    def _expected(self, cosine: Tensor) -> float:
        """Mean loss of (N, K, C) cosines; class 0 is the own class."""
        own = torch.zeros(len(cosine), dtype=torch.long)
        return float(self.item_losses(self.logits(cosine.amax(dim=2), own), own).mean())
