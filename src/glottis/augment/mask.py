"""Bands of features or stretches of frames replaced by the clip's mean (SpecAugment).

Park et al., "SpecAugment", Interspeech 2019.  n items, F features, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glottis.augment._base import Augmentation, AugmentationConfig, AugmentContext, indices
from glottis.augment._registry import register_augmentation


class FrequencyMaskConfig(AugmentationConfig):
    """SpecAugment's frequency masking, a mask per clip."""

    num_masks: int = Field(1, ge=1)
    """Bands per clip."""
    max_width: int = Field(8, ge=1)
    """Widest band, in features (mel bands, coefficients)."""
    max_share: float = Field(0.5, gt=0.0, lt=1.0)
    """All bands together never hide more than this share of the features."""


class TimeMaskConfig(AugmentationConfig):
    """SpecAugment's time masking, a mask per clip."""

    num_masks: int = Field(1, ge=1)
    """Stretches per clip."""
    max_width: int = Field(10, ge=1)
    """Longest stretch, in frames (10 ms each with the usual hop)."""
    max_share: float = Field(0.2, gt=0.0, lt=1.0)
    """All stretches together never hide more than this share of the frames."""


@dataclass(frozen=True)
class MaskParams:
    """widths: of each mask, in bins or frames.  places: 0..1 over the positions it may have."""

    widths: tuple[int, ...]
    places: tuple[float, ...]


class Mask(Augmentation[MaskParams]):
    """Base of both masks; a subclass says along which axis of (n, F, T) it hides."""

    stage = "features"
    params_type = MaskParams
    axis: ClassVar[int]

    def __init__(
        self, config: FrequencyMaskConfig | TimeMaskConfig, context: AugmentContext
    ) -> None:
        super().__init__(config, context)
        self.num_masks, self.max_width = config.num_masks, config.max_width
        self.max_share = config.max_share

    def sample(self, rng: np.random.Generator, num_samples: int) -> MaskParams:
        """Widths uniform in 0..max_width, places uniform; `change` narrows what does not fit."""
        widths = tuple(int(w) for w in rng.integers(0, self.max_width + 1, self.num_masks))
        return MaskParams(widths, tuple(float(p) for p in rng.random(self.num_masks)))

    def change(self, x: Tensor, params: Sequence[MaskParams]) -> Tensor:
        """(n, F, T) -> (n, F, T); what is hidden becomes the item's mean over all its values.

        On mean-normalised features this is zero, up to rounding.
        """
        masks = masked_positions(params, x.shape[self.axis], self.max_share, x.device)
        hidden = masks.unsqueeze(3 - self.axis)  # (n, F, 1) or (n, 1, T)
        return torch.where(hidden, x.mean(dim=(1, 2), keepdim=True), x)


@register_augmentation("frequency_mask", FrequencyMaskConfig)
class FrequencyMask(Mask):
    """Replaces bands by the clip's mean, (B, F, T) -> (B, F, T)."""

    axis = 1


@register_augmentation("time_mask", TimeMaskConfig)
class TimeMask(Mask):
    """Replaces stretches by the clip's mean, (B, F, T) -> (B, F, T)."""

    axis = 2


def masked_positions(
    params: Sequence[MaskParams], size: int, max_share: float, device: torch.device
) -> Tensor:
    """(n, size) bool: what is masked; never more than floor(max_share * size) positions."""
    masks = torch.zeros(len(params), size, dtype=torch.bool, device=device)
    positions = torch.arange(size, device=device).unsqueeze(0)
    for spans in zip(*(_spans(drawn, size, max_share) for drawn in params), strict=True):
        first = indices([start for start, _ in spans], device).unsqueeze(1)
        last = indices([stop for _, stop in spans], device).unsqueeze(1)
        masks |= (positions >= first) & (positions < last)
    return masks


def _spans(params: MaskParams, size: int, max_share: float) -> list[tuple[int, int]]:
    limit = int(max_share * size) // len(params.widths)
    widths = [min(width, limit) for width in params.widths]
    starts = [int(p * (size - w + 1)) for p, w in zip(params.places, widths, strict=True)]
    return [(start, start + width) for start, width in zip(starts, widths, strict=True)]
