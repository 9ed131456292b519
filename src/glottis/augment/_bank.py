"""Banks: many sounds in one int16 tensor that lives on the device.

Workers draw from the layout (how many clips, how long); only `apply` touches samples.
Shapes: n items, S samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glottis.audio import to_float
from glottis.augment._base import indices
from glottis.errors import DataError

SILENT_POWER = 1e-10  # -100 dB re full scale, less than the last bit of 16-bit audio


@dataclass(frozen=True)
class Sound:
    """One clip on its way into a bank.

    samples: (S,) int16.  group: clips of one group are never mixed with each other (a talker).
    """

    name: str
    kind: str
    samples: NDArray[np.int16]
    group: str = ""


class Bank:
    """Clips of one sample rate: layout as plain numbers, samples as one int16 tensor.

    kinds, names, lengths, groups: one entry per clip.  peaks: index of each clip's largest sample.
    fingerprint: 16 hex digits over rate, names and samples.  num_silent: clips left out as silent.
    """

    def __init__(self, sounds: Sequence[Sound], sample_rate: int, source: str) -> None:
        audible = [s for s in sounds if np.mean(np.square(to_float(s.samples))) > SILENT_POWER]
        if not audible:
            raise DataError(
                f"'{source}' holds no usable sound ({len(sounds)} clips, all silent)",
                why="an augmentation without material would do nothing and say nothing",
                fix="name a folder or list with audio in it, or 'simulated'",
                rule="P21",
            )
        self.source, self.sample_rate = source, sample_rate
        self.num_silent = len(sounds) - len(audible)
        self.names = tuple(s.name for s in audible)
        self.kinds = tuple(s.kind for s in audible)
        self.groups = tuple(s.group or s.name for s in audible)
        self.lengths = tuple(len(s.samples) for s in audible)
        self.peaks = tuple(int(np.argmax(np.abs(s.samples.astype(np.int32)))) for s in audible)
        self.starts = tuple(int(n) for n in np.cumsum((0, *self.lengths[:-1])))
        joined = np.concatenate([s.samples for s in audible])
        digest = hashlib.sha256(repr((sample_rate, self.names, self.lengths)).encode())
        digest.update(joined.tobytes())
        self.fingerprint = digest.hexdigest()[:16]
        self._samples: Tensor | None = torch.from_numpy(joined)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def samples(self) -> Tensor:
        """(all,) int16."""
        assert self._samples is not None, "a bank in a worker has a layout and no samples"
        return self._samples

    def to(self, device: torch.device | str) -> Self:
        """Move the samples."""
        self._samples = self.samples.to(device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": None}

    def card(self) -> dict[str, Any]:
        """Source, size and hash, for the run card."""
        return {
            "source": self.source,
            "clips": len(self),
            "silent_clips_left_out": self.num_silent,
            "seconds": round(sum(self.lengths) / self.sample_rate, 1),
            "sha256_16": self.fingerprint,
        }

    def draw_start(self, clip: int, num_samples: int, rng: np.random.Generator) -> int:
        """Where an excerpt begins: anywhere it fits; a short clip begins anywhere and repeats."""
        length = self.lengths[clip]
        return int(rng.integers(length - num_samples + 1 if length > num_samples else length))

    def excerpts(self, clips: Sequence[int], starts: Sequence[int], num_samples: int) -> Tensor:
        """(n, num_samples) float32; clips shorter than that repeat."""
        if self.samples.device.type == "cpu":
            pairs = zip(clips, starts, strict=True)
            return torch.stack([self._excerpt(c, s, num_samples) for c, s in pairs])
        return self._gathered(clips, starts, num_samples)

    def _excerpt(self, clip: int, start: int, num_samples: int) -> Tensor:
        whole = self.samples.narrow(0, self.starts[clip], self.lengths[clip])
        if start + num_samples <= len(whole):
            return whole.narrow(0, start, num_samples).to(torch.float32) / 32768.0
        turns = -(-(start + num_samples) // len(whole))
        return whole.repeat(turns).narrow(0, start, num_samples).to(torch.float32) / 32768.0

    def _gathered(self, clips: Sequence[int], starts: Sequence[int], num_samples: int) -> Tensor:
        """All at once, for devices on which one launch is cheaper than n copies."""
        begin, length = self._column(self.starts, clips), self._column(self.lengths, clips)
        steps = torch.arange(num_samples, device=begin.device).unsqueeze(0)
        first = indices(starts, begin.device).unsqueeze(1)
        return self._take(begin + (first + steps) % length)

    def centred(self, clips: Sequence[int], size: int) -> Tensor:
        """(n, size) float32, each clip with its peak at 0 and what precedes it at the end.

        size: at least the longest of the clips; the rest is zero.
        """
        if self.samples.device.type == "cpu":
            return torch.stack([self._centred(clip, size) for clip in clips])
        return self._centred_gathered(clips, size)

    def _centred(self, clip: int, size: int) -> Tensor:
        whole = self.samples.narrow(0, self.starts[clip], self.lengths[clip])
        peak, result = self.peaks[clip], torch.zeros(size)
        result[: len(whole) - peak] = whole[peak:] / 32768.0
        result[size - peak :] = whole[:peak] / 32768.0
        return result

    def _centred_gathered(self, clips: Sequence[int], size: int) -> Tensor:
        begin, length = self._column(self.starts, clips), self._column(self.lengths, clips)
        steps = torch.arange(size, device=begin.device).unsqueeze(0)
        place = (steps + self._column(self.peaks, clips)) % size
        inside = place < length
        return self._take(begin + torch.where(inside, place, 0)) * inside

    def _column(self, values: Sequence[int], clips: Sequence[int]) -> Tensor:
        return indices([values[clip] for clip in clips], self.samples.device).unsqueeze(1)

    def _take(self, index: Tensor) -> Tensor:
        return self.samples[index].to(torch.float32) / 32768.0
