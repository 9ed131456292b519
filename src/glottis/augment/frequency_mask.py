"""Bands of features hidden from the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field
from torch import Tensor

from glottis.augment._base import Augmentation, AugmentationConfig, AugmentContext
from glottis.augment._mask import MaskParams, fill_with_mean, masked_positions, sample_mask
from glottis.augment._registry import register_augmentation


class FrequencyMaskConfig(AugmentationConfig):
    """SpecAugment's frequency masking, a mask per clip."""

    num_masks: int = Field(1, ge=1)
    """Bands per clip."""
    max_width: int = Field(8, ge=1)
    """Widest band, in features (mel bands, coefficients)."""
    max_share: float = Field(0.5, gt=0.0, lt=1.0)
    """All bands together never hide more than this share of the features."""


@register_augmentation("frequency_mask", FrequencyMaskConfig)
class FrequencyMask(Augmentation[MaskParams]):
    """Replaces bands by the clip's mean, (B, F, T) -> (B, F, T)."""

    stage = "features"
    params_type = MaskParams

    def __init__(self, config: FrequencyMaskConfig, context: AugmentContext) -> None:
        super().__init__(config, context)
        self.num_masks, self.max_width = config.num_masks, config.max_width
        self.max_share = config.max_share

    def sample(self, rng: np.random.Generator, num_samples: int) -> MaskParams:
        """Widths and places; bands that would not fit are narrowed when they are applied."""
        return sample_mask(rng, self.num_masks, self.max_width)

    def change(self, x: Tensor, params: Sequence[MaskParams]) -> Tensor:
        """(n, F, T) -> (n, F, T)."""
        masks = masked_positions(params, x.shape[1], self.max_share, x.device)
        return fill_with_mean(x, masks[:, :, None])
