"""One batch on its way from the workers to the step.  B batch, S samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from glottis.audio import Broken


@dataclass(frozen=True)
class Batch:
    """Crops with everything the step needs; the waves stay int16 until they are on the device.

    wave: (B, source samples) int16, before a change of speed.
    num_samples: (B,) valid samples of each crop after it: the mask of zero-padded clips.
    labels: (B,) int64.  rows: (B,) rows of the training table.
    params: for each item, the parameters that each augmentation drew.
    group: K utterances per speaker, 0 for a flat batch.
    """

    wave: Tensor
    num_samples: Tensor
    labels: Tensor
    rows: Tensor
    params: tuple[tuple[Any, ...], ...]
    step: int
    group: int = 0
    broken: tuple[Broken, ...] = ()
    cache_hits: int = 0
    cache_misses: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by the loader)."""
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _each(self, change: Any) -> Batch:
        return replace(
            self,
            wave=change(self.wave),
            num_samples=change(self.num_samples),
            labels=change(self.labels),
            rows=change(self.rows),
        )

    def split(self, parts: int) -> list[Part]:
        """``parts`` pieces for gradient accumulation; whole groups stay together."""
        unit = max(1, self.group)
        num_units = len(self) // unit
        parts = min(parts, num_units)
        bounds = [num_units * i // parts * unit for i in range(parts + 1)]
        return [
            Part(
                wave=self.wave[a:b],
                num_samples=self.num_samples[a:b],
                labels=self.labels[a:b],
                rows=self.rows[a:b],
                params=self.params[a:b],
                step=self.step,
                group=self.group,
                is_last=i == parts - 1,
            )
            for i, (a, b) in enumerate(pairwise(bounds))
        ]


@dataclass(frozen=True)
class Part:
    """What goes through the network at once: a batch, or a piece of it.

    is_last: the piece after which gradients are exchanged between processes.
    """

    wave: Tensor
    num_samples: Tensor
    labels: Tensor
    rows: Tensor
    params: Sequence[tuple[Any, ...]] = field(default_factory=tuple)
    step: int = 0
    group: int = 0
    is_last: bool = True
