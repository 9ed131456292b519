"""Additive noise, babble recordings or music at a measured signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glottis.augment._additive import gain_for_snr
from glottis.augment._base import Augmentation, AugmentationConfig, AugmentContext, Range, column
from glottis.augment._registry import register_augmentation
from glottis.augment._sources import SIMULATED, load_bank, noise_bank
from glottis.errors import DataError


class NoiseConfig(AugmentationConfig):
    """Usual ranges: noise 0..15 dB, music 5..15 dB, babble 13..20 dB."""

    source: str = SIMULATED
    """A folder or list (path, kind), absolute or relative to data.root, or "simulated"."""
    kinds: tuple[str, ...] = ()
    """Kinds to take from the source ("noise" also takes "noise hum"); empty takes all."""
    snr_db: Range = (0.0, 15.0)
    """Signal-to-noise ratio: mean power of the clip over mean power of what is added."""
    bank_seconds: float = Field(7200.0, gt=0.0)
    """Most seconds kept in memory (32 kB each at 16 kHz); of more files excerpts are taken."""


@dataclass(frozen=True)
class NoiseParams:
    """clip: index in the bank.  start: sample in it.  snr_db: to reach."""

    clip: int
    start: int
    snr_db: float


@register_augmentation("noise", NoiseConfig)
class Noise(Augmentation[NoiseParams]):
    """Adds one excerpt of a bank, (B, S) -> (B, S); SNR in dB is exact on these samples."""

    params_type = NoiseParams

    def __init__(self, config: NoiseConfig, context: AugmentContext) -> None:
        super().__init__(config, context)
        self.snr_db = config.snr_db
        source, kinds, seconds = config.source, config.kinds, config.bank_seconds
        if source == SIMULATED:
            self.bank = noise_bank(context, kinds)
        else:
            self.bank = load_bank(source, context, kinds=kinds, max_seconds=seconds)
        rooms = sum(
            "rir" in kind.lower() and "noise" not in kind.lower() for kind in self.bank.kinds
        )
        if rooms:
            raise DataError(
                f"{rooms} of the {len(self.bank)} sounds of '{source}' are impulse responses",
                why="added as noise they would be a click",
                fix="name the kinds to use, for example kinds: [noise, music]",
                rule="P21",
            )

    def sample(self, rng: np.random.Generator, num_samples: int) -> NoiseParams:
        """A clip of the bank (all equally likely), an excerpt of it and a ratio."""
        clip = int(rng.integers(len(self.bank)))
        start = self.bank.draw_start(clip, num_samples, rng)
        return NoiseParams(clip, start, float(rng.uniform(*self.snr_db)))

    def change(self, x: Tensor, params: Sequence[NoiseParams]) -> Tensor:
        """(n, S) -> (n, S)."""
        noise = self.bank.excerpts([p.clip for p in params], [p.start for p in params], x.shape[1])
        factor, silent = gain_for_snr(x, noise, column([p.snr_db for p in params], x.device))
        self.count("silent", silent)
        return torch.addcmul(x, noise, factor)

    def to(self, device: torch.device | str) -> Self:
        """Move the bank."""
        self.bank.to(device)
        return self

    def card(self) -> dict[str, Any]:
        """The bank."""
        return self.bank.card()
