"""Speed perturbation: tempo and pitch together, optionally as new speakers.

Ko et al., "Audio augmentation for speech recognition", Interspeech 2015; as new speakers:
Yamamoto et al., "Speaker augmentation and bandwidth extension for deep speaker embedding", 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glottis.augment._base import Augmentation, AugmentationConfig, AugmentContext, indices
from glottis.augment._registry import register_augmentation
from glottis.augment._sinc import Resampler
from glottis.errors import ConfigError


class SpeedConfig(AugmentationConfig):
    """0.9, 1.0 and 1.1 with equal chances is usual."""

    factors: tuple[float, ...] = Field((0.9, 1.0, 1.1), min_length=1)
    """Equally likely, at most two decimals; 1.1 is faster and higher."""
    as_new_speakers: bool = False
    """Each factor but 1.0 makes another class of every speaker: labels + copy * num_classes."""


@dataclass(frozen=True)
class SpeedParams:
    """factor: of the tempo.  num_samples: after the change.  copy: of the speaker, 0 = none."""

    factor: float
    num_samples: int
    copy: int


@register_augmentation("speed", SpeedConfig)
class Speed(Augmentation[SpeedParams]):
    """Faster or slower, (B, longest source) -> (B, S); the worker reads more or fewer samples."""

    stage = "source"
    params_type = SpeedParams

    def __init__(self, config: SpeedConfig, context: AugmentContext) -> None:
        super().__init__(config, context)
        self.factors, self.as_new_speakers = config.factors, config.as_new_speakers
        exact = all(0.5 <= f <= 2.0 and abs(_fraction(f) - f) < 1e-9 for f in self.factors)
        if not exact or len(set(self.factors)) < len(self.factors):
            raise ConfigError(
                f"speed factors {list(self.factors)}",
                why="a third decimal would be rounded away, and two factors could become one",
                fix="different numbers from 0.5 to 2.0 with at most two decimals",
            )
        if self.as_new_speakers and 1.0 not in self.factors and self.probability == 1.0:
            raise ConfigError(
                "speed as_new_speakers without the factor 1.0 and with probability 1.0",
                why="no clip of the real speakers would be left",
                fix="add 1.0 to factors",
            )
        changed = [f for f in self.factors if f != 1.0]
        self.copies = {f: i + 1 for i, f in enumerate(changed)} if self.as_new_speakers else {}
        self.resamplers = {f: Resampler(_fraction(f)) for f in changed}

    @property
    def label_copies(self) -> int:
        """How many classes one speaker becomes."""
        return 1 + len(self.copies)

    def sample(self, rng: np.random.Generator, num_samples: int) -> SpeedParams | None:
        """One of the factors; 1.0 is None: not applied."""
        factor = self.factors[int(rng.integers(len(self.factors)))]
        if factor == 1.0:
            return None
        return SpeedParams(factor, num_samples, self.copies.get(factor, 0))

    def source_samples(self, params: SpeedParams | None, num_samples: int) -> int:
        """How many samples must be read for ``num_samples`` of output."""
        if params is None:
            return num_samples
        return math.ceil(_fraction(params.factor) * num_samples)

    def label_offset(self, params: SpeedParams | None) -> int:
        """Which copy of its speaker the clip belongs to; 0 is the speaker."""
        return 0 if params is None else params.copy

    def apply(self, x: Tensor, params: Sequence[SpeedParams | None]) -> Tensor:
        """(B, longest source) -> (B, num_samples); shorter sources end in padding, not read."""
        assert len(params) == len(x), "one set of parameters per item"
        drawn = next((p for p in params if p is not None), None)
        if drawn is None:
            return x
        target = drawn.num_samples
        rows_of: dict[float, list[int]] = {}
        for row, item in enumerate(params):
            rows_of.setdefault(1.0 if item is None else item.factor, []).append(row)
        result = x.new_empty(len(x), target)
        for factor, rows in rows_of.items():
            index = indices(rows, x.device)
            part = x.index_select(0, index)
            if factor == 1.0:
                result.index_copy_(0, index, part[:, :target])
            else:
                source = part[:, : math.ceil(_fraction(factor) * target)]
                result.index_copy_(0, index, self.resamplers[factor](source, target))
        return result

    def to(self, device: torch.device | str) -> Self:
        """Move the filters."""
        for resampler in self.resamplers.values():
            resampler.to(device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "resamplers": {}}


def _fraction(factor: float) -> Fraction:
    return Fraction(factor).limit_denominator(100)
