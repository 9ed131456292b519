"""Losses on the cosines of a countermeasure's embedding with learned directions.

Their attribute ``classifier`` makes the model's last layer a `CosineClassifier` (glottis.models),
whose cosines take the place of the logits; it is part of the model, so that a loaded model scores
as the trained one did.

OC-softmax: Zhang, Jiang and Duan, "One-class learning towards synthetic voice spoofing detection",
IEEE SPL 2021 (arXiv 2010.13995), equation 4.  P2SGrad: Wang and Yamagishi, "A comparative study on
recent neural spoofing countermeasures for synthetic speech detection", Interspeech 2021 (arXiv
2103.11326), section 2.3, after Zhang et al., CVPR 2019.

Classes: 0 spoof, 1 bona fide.  B batch.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.losses._common import LossOutput, accuracy, in_float32, mean_loss, require_shapes
from glottis.losses._registry import register_loss


class OcSoftmaxConfig(Config):
    """Options of one-class softmax."""

    scale: float = Field(20.0, gt=0)
    """alpha, sharpness of both margins"""
    bonafide_margin: float = Field(0.9, ge=-1, le=1)
    """cosine that bona fide speech shall exceed"""
    spoof_margin: float = Field(0.2, ge=-1, le=1)
    """cosine that spoofed speech shall stay below"""


class P2sGradConfig(Config):
    """P2SGrad has no options."""


@register_loss("oc_softmax", OcSoftmaxConfig)
class OcSoftmax(nn.Module):
    """Cosines (B, 2) = -c | c, labels (B,) in {0 spoof, 1 bona fide} -> mean softplus of the miss.

    softplus(alpha (m_bonafide - c)) or softplus(alpha (c - m_spoof)); c is the cosine with the one
    learned direction.  Zhang et al., IEEE SPL 2021, equation 4.
    """

    reference = "Zhang et al., IEEE SPL 2021"
    task = "spoof"
    batch = "flat"
    input = "logits"
    classifier = "one_class"

    def __init__(self, config: OcSoftmaxConfig, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.scale = config.scale
        self.margins = config.spoof_margin, config.bonafide_margin

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_shapes(x, labels, 2, 2)
        spoof_margin, bonafide_margin = self.margins
        cosine = x[:, 1]
        miss = torch.where(labels == 1, bonafide_margin - cosine, cosine - spoof_margin)
        losses = functional.softplus(self.scale * miss)
        return LossOutput(mean_loss(losses, weights), {"accuracy": accuracy(x, labels)})

    def chance_loss(self, num_classes: int) -> float:
        """Cosine 0, as many bona fide as spoofed: the mean of both softplus."""
        spoof_margin, bonafide_margin = self.margins
        misses = torch.tensor([bonafide_margin, -spoof_margin], dtype=torch.float64)
        return float(functional.softplus(self.scale * misses).mean())

    def collapse_loss(self, num_classes: int) -> float | None:
        """None: what a constant answer costs depends on the shares of the classes."""
        return None


@register_loss("p2s_grad", P2sGradConfig)
class P2sGrad(nn.Module):
    """Cosines (B, 2), labels (B,) in {0 spoof, 1 bona fide} -> mean squared distance to one-hot.

    (c[label] - 1)^2 + (c[other])^2; no scale and no margin to tune.  Wang and Yamagishi,
    Interspeech 2021.
    """

    reference = "Wang and Yamagishi, Interspeech 2021"
    task = "spoof"
    batch = "flat"
    input = "logits"
    classifier = "cosine"

    def __init__(self, config: P2sGradConfig, embedding_size: int, num_classes: int) -> None:
        super().__init__()

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_shapes(x, labels, 2, 2)
        target = functional.one_hot(labels, 2).to(x)
        losses = (x - target).square().sum(dim=1)
        return LossOutput(mean_loss(losses, weights), {"accuracy": accuracy(x, labels)})

    def chance_loss(self, num_classes: int) -> float:
        """1: both cosines are 0."""
        return 1.0

    def collapse_loss(self, num_classes: int) -> float | None:
        """None: what a constant answer costs depends on the shares of the classes."""
        return None
