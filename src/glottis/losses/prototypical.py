"""Prototypical losses: find a speaker's other utterances among those of other speakers.

Prototypical: Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NeurIPS
2017, for speakers Wang et al., "Centroid-based deep metric learning", ICASSP 2019.  Angular
prototypical and its sum with softmax: Chung et al., "In defence of metric learning for speaker
recognition", Interspeech 2020 (arXiv 2003.11982), sections 2.2 and 4.3; Kwon et al., "The ins and
outs of speaker recognition", ICASSP 2021.

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
from glottis.losses.softmax import Softmax, SoftmaxConfig


class PrototypicalConfig(Config):
    """The prototypical loss has no options."""


class AngularPrototypicalConfig(Config):
    """Options of the angular prototypical loss."""

    initial_scale: float = Field(10.0, gt=0)
    """learned factor of the cosines, at the start"""
    initial_bias: float = -5.0
    """learned offset of the cosines, at the start; it cancels in the softmax"""


class SoftmaxPrototypicalConfig(AngularPrototypicalConfig):
    """Options of softmax + angular prototypical."""

    softmax_weight: float = Field(1.0, ge=0)
    """factor of the softmax term"""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """share of the softmax target that is spread over all classes"""


@register_loss("prototypical", PrototypicalConfig)
class Prototypical(nn.Module):
    """Embeddings (P, K, D), K >= 2 utterances of P different speakers, labels (P,) -> loss.

    The first utterance is the query, the mean of the others its speaker's prototype; cross-entropy
    over the P prototypes of minus the squared Euclidean distance.  Snell et al., NeurIPS 2017,
    equation 2.  (In the public trainer's code an index error compares embedding components instead
    of speakers; this is what its authors describe.)
    """

    reference = "Snell et al., NeurIPS 2017"
    task = "speaker"
    batch = "grouped"
    input = "embedding"

    def __init__(self, config: PrototypicalConfig, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.embedding_size = embedding_size

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_groups(x, labels, self.embedding_size)
        query, prototype = x[:, 0], x[:, 1:].mean(dim=1)
        # |q - p|^2 without a (P, P, D) tensor; |q|^2 cancels in the softmax
        logits = 2 * query @ prototype.T - prototype.square().sum(dim=1)
        own = torch.arange(len(x), device=x.device)
        losses = functional.cross_entropy(logits, own, reduction="none")
        return LossOutput(mean_loss(losses, weights), {"accuracy": accuracy(logits, own)})

    def chance_loss(self, num_classes: int) -> float:
        """ln P, P speakers in a batch, for embeddings much shorter than 1 (all distances alike)."""
        return math.log(num_classes)

    def collapse_loss(self, num_classes: int) -> float:
        """ln P, P speakers in a batch: all embeddings equal."""
        return math.log(num_classes)


@register_loss("angular_prototypical", AngularPrototypicalConfig)
class AngularPrototypical(nn.Module):
    """Embeddings (P, K, D), K >= 2 utterances of P different speakers, labels (P,) -> loss.

    The first utterance is the query, the mean of the others its speaker's prototype; cross-entropy
    over the P prototypes of w cos + b, with w kept positive.  The labels only say that speakers
    differ.  Chung et al., Interspeech 2020, section 2.2.
    """

    reference = "Chung et al., Interspeech 2020"
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
        require_groups(x, labels, self.embedding_size)
        cosine = cosines(x[:, 0], x[:, 1:].mean(dim=1))  # query p against prototype q, (P, P)
        logits = cosine * positive(self.scale) + self.bias
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


@register_loss("softmax_prototypical", SoftmaxPrototypicalConfig)
class SoftmaxPrototypical(nn.Module):
    """Embeddings (P, K, D), labels (P,) -> softmax over all classes + angular prototypical.

    Every utterance goes through the classifier, the groups through the prototypes; Kwon et al.,
    ICASSP 2021, section 2.2.
    """

    reference = "Kwon et al., ICASSP 2021"
    task = "speaker"
    batch = "grouped"
    input = "embedding"

    def __init__(
        self, config: SoftmaxPrototypicalConfig, embedding_size: int, num_classes: int
    ) -> None:
        super().__init__()
        self.embedding_size, self.num_classes = embedding_size, num_classes
        self.softmax_weight = config.softmax_weight
        smoothing = SoftmaxConfig(label_smoothing=config.label_smoothing)
        self.softmax = Softmax(smoothing, embedding_size, num_classes)
        angular = AngularPrototypicalConfig(
            initial_scale=config.initial_scale, initial_bias=config.initial_bias
        )
        self.prototypical = AngularPrototypical(angular, embedding_size, num_classes)

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_groups(x, labels, self.embedding_size)
        size = x.shape[1]
        each = None if weights is None else weights.repeat_interleave(size)
        classes = self.softmax(x.flatten(0, 1), labels.repeat_interleave(size), each)
        groups = self.prototypical(x, labels, weights)
        stats = {
            **classes.stats,
            "group_accuracy": groups.stats["accuracy"],
            "softmax": classes.loss.detach(),
            "prototypical": groups.loss.detach(),
        }
        return LossOutput(self.softmax_weight * classes.loss + groups.loss, stats)

    def chance_loss(self, num_classes: int) -> float:
        """num_classes: P, the speakers in a batch; the classifier has its own number."""
        own = self.softmax.chance_loss(self.num_classes)
        return self.softmax_weight * own + self.prototypical.chance_loss(num_classes)

    def collapse_loss(self, num_classes: int) -> float:
        """ln P + weight * ln K: all embeddings equal, P speakers in a batch, K classes."""
        own = self.softmax.collapse_loss(self.num_classes)
        return self.softmax_weight * own + self.prototypical.collapse_loss(num_classes)
