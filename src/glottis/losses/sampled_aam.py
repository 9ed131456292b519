"""AAM softmax for very many classes: the own class against a changing sample of the others.

An et al., "Partial FC: training 10 million identities on a single machine", ICCVW 2021 (arXiv
2010.05222), and "Killing two birds with one stone", CVPR 2022 (arXiv 2203.15565), section 3.

Shapes: B batch, D embedding, K classes, N sampled classes.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

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
from glottis.losses.margin import AamSoftmax, AamSoftmaxConfig
from glottis.rng import generator


class SampledAamConfig(AamSoftmaxConfig):
    """Options of AAM softmax over a sample of the classes."""

    share: float = Field(0.1, gt=0, le=1)
    """part of the classes that a step sees, besides those of its batch"""
    least: int = Field(1000, ge=1)
    """but at least so many"""


@register_loss("sampled_aam", SampledAamConfig)
class SampledAam(AamSoftmax):
    """Embeddings (B, D), labels (B,) -> AAM against the classes of the batch and N others.

    An et al., CVPR 2022.  The others are the next N of one fixed random order of all classes, so
    that every class has its turn, a resumed run goes on where it stopped, and nothing waits for
    the device.  With N = K this is AAM softmax.  The logits need B (B + N) values instead of B K;
    the centres and their moments stay whole.
    """

    reference = "An et al., CVPR 2022"

    order: Tensor
    turn: Tensor

    def __init__(self, config: SampledAamConfig, embedding_size: int, num_classes: int) -> None:
        super().__init__(config, embedding_size, num_classes)
        self.sampled = min(num_classes, max(config.least, math.ceil(config.share * num_classes)))
        order = torch.from_numpy(generator(0, "classes", num_classes).permutation(num_classes))
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_shapes(x, labels, 2, self.embedding_size)
        columns, usable = self._columns(labels)
        chosen = functional.embedding(columns, self.centres)
        cosine = cosines(x, chosen)  # (B, B + N)
        # the first column of an item's class is its target
        own = (labels[:, None] == labels).int().argmax(dim=1)
        logits = self.logits(cosine, own).masked_fill(~usable, -torch.inf)
        plain = cosine.masked_fill(~usable, -torch.inf)
        losses = self.item_losses(logits, own)
        return LossOutput(mean_loss(losses, weights), {"accuracy": accuracy(plain, own)})

    def _columns(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Classes (B + N,) of this step, and which of them count: each class once."""
        places = torch.arange(self.sampled, device=labels.device) + self.turn * self.sampled
        others = self.order[places % len(self.order)]
        if self.training:
            self.turn += 1
        same = labels[:, None] == labels
        first = same.int().argmax(dim=1) == torch.arange(len(labels), device=labels.device)
        new = ~torch.isin(others, labels)
        return torch.cat([labels, others]), torch.cat([first, new])

    def chance_loss(self, num_classes: int) -> float:
        """As AAM softmax against N classes, as long as N is much more than a batch has."""
        spread = log_mean_exp_cosine(self.scale, self.embedding_size)
        cost = self.scale * self.margin_cost()
        others = min(num_classes - 1, self.sampled)
        return self._smoothed(cross_entropy_against(others, spread + cost), cost)

    def collapse_loss(self, num_classes: int) -> float:
        """All embeddings and centres on one line, against N classes."""
        return super().collapse_loss(min(num_classes, self.sampled + 1))
