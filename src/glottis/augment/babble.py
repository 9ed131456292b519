"""Babble: several talkers of a speech corpus added at a measured signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glottis.augment._additive import gain_for_snr, power
from glottis.augment._bank import SILENT_POWER
from glottis.augment._base import (
    Augmentation,
    AugmentationConfig,
    AugmentContext,
    Range,
    column,
    indices,
)
from glottis.augment._registry import register_augmentation
from glottis.augment._sources import SIMULATED, load_bank, talker_bank
from glottis.errors import ConfigError, DataError


class BabbleConfig(AugmentationConfig):
    """Usual: 3..7 talkers at 13..20 dB.  Ready-made babble recordings belong to `noise`."""

    source: str = SIMULATED
    """Speech: a manifest or list (path, speaker, split), a folder, or "simulated"."""
    split: str = "train"
    """Rows of a list that has a split column; evaluation speech must never be heard in training."""
    talkers: tuple[int, int] = (3, 7)
    """Fewest and most talkers at once, each at the same level."""
    snr_db: Range = (13.0, 20.0)
    """Signal-to-noise ratio: mean power of the clip over mean power of the babble."""
    bank_seconds: float = Field(3600.0, gt=0.0)
    """Most seconds kept in memory (32 kB each at 16 kHz); of more files excerpts are taken."""


@dataclass(frozen=True)
class BabbleParams:
    """clips: indices in the bank.  starts: sample in each.  snr_db: to reach."""

    clips: tuple[int, ...]
    starts: tuple[int, ...]
    snr_db: float


@register_augmentation("babble", BabbleConfig)
class Babble(Augmentation[BabbleParams]):
    """Adds several talkers of a bank, (B, S) -> (B, S); SNR in dB is exact on these samples."""

    params_type = BabbleParams

    def __init__(self, config: BabbleConfig, context: AugmentContext) -> None:
        super().__init__(config, context)
        self.snr_db, self.talkers = config.snr_db, config.talkers
        if not 1 <= self.talkers[0] <= self.talkers[1]:
            raise ConfigError(
                f"talkers {list(self.talkers)} is not a range", fix="for example [3, 7]"
            )
        source, split, seconds = config.source, config.split, config.bank_seconds
        if source == SIMULATED:
            self.bank = talker_bank(context)
        else:
            self.bank = load_bank(source, context, split=split, max_seconds=seconds)
        members: dict[str, list[int]] = {}
        for clip, group in enumerate(self.bank.groups):
            members.setdefault(group, []).append(clip)
        self.members = tuple(tuple(clips) for clips in members.values())
        if len(self.members) < self.talkers[1]:
            raise DataError(
                f"'{source}' has {len(self.members)} talkers, babble asks for up to "
                f"{self.talkers[1]}",
                fix="fewer talkers, or a source with more speakers",
                rule="P21",
            )

    def sample(self, rng: np.random.Generator, num_samples: int) -> BabbleParams:
        """Different talkers (all equally likely), one clip of each, and a ratio."""
        count = int(rng.integers(self.talkers[0], self.talkers[1] + 1))
        chosen = rng.choice(len(self.members), count, replace=False)
        clips = tuple(int(rng.choice(self.members[talker])) for talker in chosen)
        starts = tuple(self.bank.draw_start(clip, num_samples, rng) for clip in clips)
        return BabbleParams(clips, starts, float(rng.uniform(*self.snr_db)))

    def change(self, x: Tensor, params: Sequence[BabbleParams]) -> Tensor:
        """(n, S) -> (n, S)."""
        babble = torch.zeros_like(x)
        for voice in range(max(len(p.clips) for p in params)):
            rows = [row for row, p in enumerate(params) if voice < len(p.clips)]
            talker = self.bank.excerpts(
                [params[row].clips[voice] for row in rows],
                [params[row].starts[voice] for row in rows],
                x.shape[1],
            )
            talker = talker * power(talker).clamp_min(SILENT_POWER).rsqrt()
            index = indices(rows, x.device)
            babble = babble.index_copy(0, index, babble.index_select(0, index) + talker)
        factor, silent = gain_for_snr(x, babble, column([p.snr_db for p in params], x.device))
        self.count("silent", silent)
        return torch.addcmul(x, babble, factor)

    def to(self, device: torch.device | str) -> Self:
        """Move the bank."""
        self.bank.to(device)
        return self

    def card(self) -> dict[str, Any]:
        """The bank."""
        return {**self.bank.card(), "talkers": len(self.members)}
