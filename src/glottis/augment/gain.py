"""Another loudness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from glottis.augment._base import Augmentation, AugmentationConfig, AugmentContext, Range, column
from glottis.augment._registry import register_augmentation


class GainConfig(AugmentationConfig):
    """Countermeasures flip with loudness; this teaches them not to."""

    gain_db: Range = (-6.0, 6.0)
    """Decibels added to the level; all samples are multiplied by 10 ** (gain_db / 20)."""


@dataclass(frozen=True)
class GainParams:
    """gain_db: decibels."""

    gain_db: float


@register_augmentation("gain", GainConfig)
class Gain(Augmentation[GainParams]):
    """Changes the level by some decibels, (B, S) -> (B, S)."""

    params_type = GainParams

    def __init__(self, config: GainConfig, context: AugmentContext) -> None:
        super().__init__(config, context)
        self.gain_db = config.gain_db

    def sample(self, rng: np.random.Generator, num_samples: int) -> GainParams:
        """Uniform in decibels."""
        return GainParams(float(rng.uniform(*self.gain_db)))

    def change(self, x: Tensor, params: Sequence[GainParams]) -> Tensor:
        """(n, S) -> (n, S)."""
        return x * column([10.0 ** (p.gain_db / 20.0) for p in params], x.device)
