"""Mixup: clips become weighted sums of two clips, and so do their losses.

Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018, equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from torch import Tensor

from glottis.augment._base import Augmentation, AugmentationConfig, AugmentContext, column, indices
from glottis.augment._registry import register_augmentation


class MixupConfig(AugmentationConfig):
    """Only for losses over single items (softmax family, countermeasures)."""

    alpha: float = Field(0.2, gt=0.0)
    """Shares are drawn from Beta(alpha, alpha): small means nearly pure, 1 means uniform."""


@dataclass(frozen=True)
class MixupParams:
    """share: of the item itself.  place: 0..1, which of the other items is its partner."""

    share: float
    place: float


@register_augmentation("mixup", MixupConfig)
class Mixup(Augmentation[MixupParams]):
    """Mixes every clip with another of the batch, (B, S) -> (B, S), partners and shares (B,)."""

    stage = "batch"
    params_type = MixupParams

    def __init__(self, config: MixupConfig, context: AugmentContext) -> None:
        super().__init__(config, context)
        self.alpha = config.alpha

    def sample(self, rng: np.random.Generator, num_samples: int) -> MixupParams:
        """A share and, as a fraction, a partner; the size of the batch is not known yet."""
        return MixupParams(float(rng.beta(self.alpha, self.alpha)), float(rng.random()))

    def apply(
        self, x: Tensor, params: Sequence[MixupParams | None]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S) -> mixed (B, S), partner (B,) int64, share (B,) float32.

        mixed = share * x + (1 - share) * x[partner]; the loss of item b is then
        share * loss(label) + (1 - share) * loss(label[partner]).  An item without parameters, and
        the only item of a batch, has itself as partner and share 1.
        """
        total = len(x)
        partners = [partner_of(row, drawn, total) for row, drawn in enumerate(params)]
        shares = [1.0 if p is None or total == 1 else p.share for p in params]
        partner = indices(partners, x.device)
        share = column(shares, x.device)
        return share * x + (1.0 - share) * x.index_select(0, partner), partner, share.squeeze(1)


def partner_of(row: int, params: MixupParams | None, total: int) -> int:
    """Another row of a batch of ``total``; the row itself without parameters or without others."""
    if params is None or total == 1:
        return row
    return (row + 1 + int(params.place * (total - 1))) % total
