"""Reverberation: convolution with the impulse response of a room, aligned and at the same level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field
from scipy import fft
from torch import Tensor

from glottis.augment._additive import power
from glottis.augment._bank import SILENT_POWER
from glottis.augment._base import Augmentation, AugmentationConfig, AugmentContext, Range
from glottis.augment._registry import register_augmentation
from glottis.augment._sources import LISTS, SIMULATED, load_bank, room_bank
from glottis.errors import DataError

_SOUNDS = ("noise", "music", "speech", "babble")  # sub-folders of the usual corpora


class ReverbConfig(AugmentationConfig):
    """Rooms of a corpus, or simulated ones."""

    source: str = SIMULATED
    """A folder or list (path, kind), absolute or relative to data.root, or "simulated"."""
    kinds: tuple[str, ...] = ()
    """Kinds to take from the source ("rir" also takes "rir recorded"); empty takes all."""
    simulated_rooms: int = Field(64, ge=1)
    """How many rooms to simulate."""
    rt60_seconds: Range = (0.15, 0.8)
    """Reverberation time of simulated rooms."""
    direct_to_reverberant_db: Range = (-3.0, 12.0)
    """Energy of the direct sound over the rest, of simulated rooms."""
    bank_seconds: float = Field(1800.0, gt=0.0)
    """Most seconds kept in memory (32 kB each at 16 kHz); of more a random part of the files."""


@dataclass(frozen=True)
class ReverbParams:
    """room: index in the bank."""

    room: int


@register_augmentation("reverb", ReverbConfig)
class Reverb(Augmentation[ReverbParams]):
    """Puts the clip into a room, (B, S) -> (B, S): direct sound in place, RMS kept."""

    params_type = ReverbParams

    def __init__(self, config: ReverbConfig, context: AugmentContext) -> None:
        super().__init__(config, context)
        source, kinds, seconds = config.source, config.kinds, config.bank_seconds
        rooms, rt60_s = config.simulated_rooms, config.rt60_seconds
        ratio_db = config.direct_to_reverberant_db
        if source == SIMULATED:
            self.bank = room_bank(context, rooms, rt60_s, ratio_db)
        else:
            self.bank = load_bank(source, context, kinds=kinds, max_seconds=seconds, rooms=True)
            others = {kind for kind in self.bank.kinds if _is_other(kind, source.endswith(LISTS))}
            if others:
                raise DataError(
                    f"'{source}' holds more than impulse responses: {', '.join(sorted(others))}",
                    why="speech convolved with noise is noise",
                    fix="name the kinds to use, for example kinds: [rir]",
                    rule="P21",
                )

    def sample(self, rng: np.random.Generator, num_samples: int) -> ReverbParams:
        """A room of the bank, all equally likely."""
        return ReverbParams(int(rng.integers(len(self.bank))))

    def change(self, x: Tensor, params: Sequence[ReverbParams]) -> Tensor:
        """(n, S) -> (n, S): y[t] = g sum_k h[k] x[t + peak - k], g so that RMS(y) = RMS(x)."""
        rooms = [p.room for p in params]
        # the longest room of the bank, not of the batch: a result must not depend on its batch
        size = fft.next_fast_len(x.shape[1] + max(self.bank.lengths) - 1, real=True)
        response = torch.fft.rfft(self.bank.centred(rooms, size))
        wet = torch.fft.irfft(torch.fft.rfft(x, n=size) * response, n=size)[:, : x.shape[1]]
        before, after = power(x), power(wet)
        silent = (before <= SILENT_POWER) | (after <= SILENT_POWER)
        self.count("silent", silent)
        gain = (before / after.clamp_min(SILENT_POWER)).sqrt()
        return torch.where(silent, x, wet * gain)

    def to(self, device: torch.device | str) -> Self:
        """Move the bank."""
        self.bank.to(device)
        return self

    def card(self) -> dict[str, Any]:
        """The bank."""
        return self.bank.card()


def _is_other(kind: str, listed: bool) -> bool:
    """Is this kind anything but rooms?  A list says what it holds, a folder may have any name."""
    if not kind or "rir" in kind.lower():
        return False
    return listed or any(word in kind.lower() for word in _SOUNDS)
