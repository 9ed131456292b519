"""Triplet losses: a speaker's own utterance must be nearer than another speaker's.

Schroff, Kalenichenko and Philbin, "FaceNet", CVPR 2015, equation 3 (hard and semi-hard negatives);
Hermans, Beyer and Leibe, "In defense of the triplet loss for person re-identification", 2017
(arXiv 1703.07737), equations 4 and 5 (whole batch).  Embeddings are brought to unit length.

Shapes: P speakers in a batch, K utterances of each, N = P K, D embedding.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from scipy.special import ndtr
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.errors import ModelError
from glottis.losses._common import LossOutput, in_float32, mean_loss, require_groups
from glottis.losses._registry import register_loss


class TripletConfig(Config):
    """Options of the triplet loss."""

    margin: float = Field(0.2, ge=0)
    """by how much the negative must be further away than the positive"""
    mining: Literal["hard", "semi_hard", "batch_hard", "batch_all"] = "hard"
    """which negatives: for the first utterance of each speaker against the second, the nearest or
    the nearest of those beyond the positive but within the margin (squared distances); for every
    utterance, furthest positive against nearest negative, or all triplets (plain distances)"""


@register_loss("triplet", TripletConfig)
class Triplet(nn.Module):
    """Embeddings (P, K, D), K >= 2 utterances of P different speakers, labels (P,) -> loss.

    Mean of max(0, margin + distance to the positive - distance to the negative); Schroff et al.,
    CVPR 2015, equation 3.  A speaker without a semi-hard negative takes his nearest one.
    """

    reference = "Schroff et al., CVPR 2015; Hermans et al., 2017"
    task = "speaker"
    batch = "grouped"
    input = "embedding"

    def __init__(self, config: TripletConfig, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.margin, self.mining = config.margin, config.mining

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        require_groups(x, labels, self.embedding_size)
        if len(x) < 2:
            raise ModelError(
                "a batch of one speaker has no triplet: the negative is another speaker's",
                fix="use at least two speakers per batch (batch.speakers)",
            )
        x = functional.normalize(x, dim=-1, eps=1e-6)
        if self.mining in ("hard", "semi_hard"):
            losses, right = pair_triplets(x[:, 0], x[:, 1], self.margin, self.mining)
        else:
            speakers, size = x.shape[:2]
            flat = x.flatten(0, 1)
            own = torch.arange(speakers, device=x.device).repeat_interleave(size)
            losses, right = batch_triplets(flat, own, self.margin, self.mining)
            losses = losses.view(speakers, size).mean(dim=1)
        return LossOutput(mean_loss(losses, weights), {"accuracy": right.float().mean()})

    def chance_loss(self, num_classes: int) -> float:
        """Random embeddings; num_classes: P, the speakers in a batch.

        "hard": E[max(0, margin + 2 (largest of P - 1 cosines - own cosine))], cosines being normal
        with a deviation of 1 / sqrt(D).  Otherwise about the margin, as all pairs are about
        equally far apart; "batch_hard" is higher.
        """
        if self.mining != "hard" or num_classes < 2:
            return self.margin
        z = np.linspace(-6, 6, 601)
        density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        others = num_classes - 1
        largest = others * ndtr(z) ** (others - 1) * density
        gap = 2 / math.sqrt(self.embedding_size) * (z[:, None] - z)
        expected = np.maximum(0, self.margin + gap) * largest[:, None] * density
        return float(expected.sum() * (z[1] - z[0]) ** 2)

    def collapse_loss(self, num_classes: int) -> float:
        """margin: all distances are 0."""
        return self.margin


def semi_hard(similarity: Tensor, margin: float) -> Tensor:
    """(P, P) bool for minus squared distances: further than the own pair, but within the margin."""
    own = similarity.diagonal()[:, None]
    other = ~torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    return (similarity < own) & (similarity + margin > own) & other


def pair_triplets(
    anchors: Tensor, positives: Tensor, margin: float, mining: str
) -> tuple[Tensor, Tensor]:
    """Unit vectors (P, D) of both utterances -> losses (P,), and which triplets are in order."""
    similarity = 2 * (anchors @ positives.T) - 2  # minus the squared distance of unit vectors
    with torch.no_grad():
        own = torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
        among = similarity.masked_fill(own, -torch.inf)
        if mining == "semi_hard":
            fits = semi_hard(similarity, margin)
            narrowed = among.masked_fill(~fits, -torch.inf)
            among = torch.where(fits.any(dim=1, keepdim=True), narrowed, among)
        nearest = among.argmax(dim=1)
    to_positive = (anchors - positives).square().sum(dim=1)
    to_negative = (anchors - positives[nearest]).square().sum(dim=1)
    losses = functional.relu(to_positive - to_negative + margin)
    return losses, (to_positive < to_negative).detach()


def batch_triplets(x: Tensor, labels: Tensor, margin: float, mining: str) -> tuple[Tensor, Tensor]:
    """Unit vectors (N, D) with labels (N,) -> losses (N,), and which anchors are in order.

    An item's loss in "batch_all" is the mean over its triplets, every item having equally many.
    """
    lengths = x.square().sum(dim=1)
    squared = lengths[:, None] + lengths - 2 * (x @ x.T)
    distance = squared.clamp_min(1e-12).sqrt()  # the root has a slope at 0
    same = labels[:, None] == labels
    itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
    furthest = distance.masked_fill(~same | itself, -torch.inf).amax(dim=1)
    nearest = distance.masked_fill(same, torch.inf).amin(dim=1)
    right = (furthest < nearest).detach()
    if mining == "batch_hard":
        return functional.relu(furthest - nearest + margin), right
    violations = functional.relu(distance[:, :, None] - distance[:, None, :] + margin)
    valid = (same & ~itself)[:, :, None] & ~same[:, None, :]  # anchor, positive, negative
    return (violations * valid).sum(dim=(1, 2)) / valid.sum(dim=(1, 2)), right
