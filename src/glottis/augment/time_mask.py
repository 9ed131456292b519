"""Stretches of frames hidden from the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field
from torch import Tensor

from glottis.augment._base import Augmentation, AugmentationConfig, AugmentContext
from glottis.augment._mask import MaskParams, fill_with_mean, masked_positions, sample_mask
from glottis.augment._registry import register_augmentation


class TimeMaskConfig(AugmentationConfig):
    """SpecAugment's time masking, a mask per clip."""

    num_masks: int = Field(1, ge=1)
    """Stretches per clip."""
    max_width: int = Field(10, ge=1)
    """Longest stretch, in frames (10 ms each with the usual hop)."""
    max_share: float = Field(0.2, gt=0.0, lt=1.0)
    """All stretches together never hide more than this share of the frames."""


@register_augmentation("time_mask", TimeMaskConfig)
class TimeMask(Augmentation[MaskParams]):
    """Replaces stretches by the clip's mean, (B, F, T) -> (B, F, T)."""

    stage = "features"
    params_type = MaskParams

    def __init__(self, config: TimeMaskConfig, context: AugmentContext) -> None:
        super().__init__(config, context)
        self.num_masks, self.max_width = config.num_masks, config.max_width
        self.max_share = config.max_share

    def sample(self, rng: np.random.Generator, num_samples: int) -> MaskParams:
        """Widths and places; stretches that would not fit are shortened when they are applied."""
        return sample_mask(rng, self.num_masks, self.max_width)

    def change(self, x: Tensor, params: Sequence[MaskParams]) -> Tensor:
        """(n, F, T) -> (n, F, T)."""
        masks = masked_positions(params, x.shape[2], self.max_share, x.device)
        return fill_with_mean(x, masks[:, None, :])
