"""No sample beyond full scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glottis.augment._base import Augmentation, AugmentationConfig, AugmentContext, column
from glottis.augment._registry import register_augmentation


class PeakGuardConfig(AugmentationConfig):
    """Put it last.  Networks read float32: going beyond full scale harms nothing by itself."""

    ceiling: float = Field(0.99, gt=0.0, le=1.0)
    """Largest magnitude that may remain."""


@dataclass(frozen=True)
class PeakGuardParams:
    """ceiling: largest magnitude that may remain."""

    ceiling: float


@register_augmentation("peak_guard", PeakGuardConfig)
class PeakGuard(Augmentation[PeakGuardParams]):
    """Turns clips down whose peak is above a ceiling, (B, S) -> (B, S); others stay as they are."""

    params_type = PeakGuardParams

    def __init__(self, config: PeakGuardConfig, context: AugmentContext) -> None:
        super().__init__(config, context)
        self.ceiling = config.ceiling

    def sample(self, rng: np.random.Generator, num_samples: int) -> PeakGuardParams:
        """Nothing is random."""
        return PeakGuardParams(self.ceiling)

    def change(self, x: Tensor, params: Sequence[PeakGuardParams]) -> Tensor:
        """(n, S) -> (n, S)."""
        ceiling = column([p.ceiling for p in params], x.device)
        peak = x.abs().amax(dim=1, keepdim=True)
        self.count("turned_down", peak > ceiling)
        return torch.where(peak > ceiling, x * (ceiling / peak.clamp_min(1e-9)), x)
