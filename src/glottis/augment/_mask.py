"""Bands of features or stretches of frames replaced by the clip's mean (SpecAugment).

Park et al., "SpecAugment", Interspeech 2019.  n items, F features, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glottis.augment._base import indices


@dataclass(frozen=True)
class MaskParams:
    """widths: of each mask, in bins or frames.  places: 0..1 over the positions it may have."""

    widths: tuple[int, ...]
    places: tuple[float, ...]


def sample_mask(rng: np.random.Generator, num_masks: int, max_width: int) -> MaskParams:
    """Widths uniform in 0..max_width, places uniform."""
    widths = tuple(int(w) for w in rng.integers(0, max_width + 1, num_masks))
    return MaskParams(widths, tuple(float(p) for p in rng.random(num_masks)))


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


def fill_with_mean(features: Tensor, masks: Tensor) -> Tensor:
    """(n, F, T) with the masked values replaced by the item's mean over all features and frames.

    On mean-normalised features this is zero, up to rounding.
    """
    return torch.where(masks, features.mean(dim=(1, 2), keepdim=True), features)
