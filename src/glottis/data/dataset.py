"""Crops of clips: item i of step s is a pure function of (seed, s, i).

The crop position and every augmentation parameter are drawn here, in the worker; the augmentations
themselves run on the device.  A clip that cannot be read is reported and another clip of its class
takes its place (never zeros); which one is also a function of (seed, s, i).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch

from glottis.audio import Broken
from glottis.data.batch import Batch
from glottis.data.source import ClipSource, FileSource
from glottis.errors import AudioError, DataError
from glottis.rng import generator

MAX_REPLACEMENTS = 20


class ParameterDraw(Protocol):
    """What the dataset needs from `glottis.augment.Augmenter`."""

    def draw(
        self, rng: np.random.Generator, num_samples: int, strength: float = 1.0
    ) -> tuple[Any, ...]: ...

    def source_samples(self, params: tuple[Any, ...], num_samples: int) -> int: ...

    def label_offset(self, params: tuple[Any, ...]) -> int: ...


@dataclass(frozen=True)
class Draw:
    """One item to make: its step, its place in the (global) batch and its row."""

    step: int
    item: int
    row: int


class CropDataset(torch.utils.data.Dataset[Batch]):
    """Batches of fixed-length crops.

    labels: (N,) class of each row.  crop_samples: S.
    short_clips: "repeat" tiles a clip shorter than the crop from a random offset; "zero" pads it
    with zeros behind, and `Batch.num_samples` says how much is real.
    num_classes: K before speed copies; a copy at another speed may count as a new class.
    strength: factor on the probabilities of the augmentations, by step.
    """

    def __init__(
        self,
        source: ClipSource,
        labels: np.ndarray,
        utterances: Sequence[str],
        *,
        crop_samples: int,
        short_clips: Literal["repeat", "zero"],
        seed: int,
        num_classes: int,
        augmenter: ParameterDraw | None = None,
        group: int = 0,
        strength: Callable[[int], float] | None = None,
    ) -> None:
        self.source, self.labels, self.utterances = source, labels, utterances
        self.crop_samples, self.short_clips, self.seed = crop_samples, short_clips, seed
        self.num_classes, self.augmenter, self.group = num_classes, augmenter, group
        self.strength = strength
        self._reported: set[int] = set()
        self._members: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, draw: Draw) -> Batch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        """The batch of these draws (the loader calls it once per batch, in a worker)."""
        before = self._cache_counts()
        broken: list[Broken] = []
        crops, lengths, labels, rows, params = [], [], [], [], []
        for draw in draws:
            crop, row, drawn = self._item(draw, broken)
            offset = self.augmenter.label_offset(drawn) if self.augmenter else 0
            crops.append(crop)
            needed = (
                self.augmenter.source_samples(drawn, self.crop_samples) if self.augmenter else 0
            )
            valid = len(crop) if not needed else round(len(crop) * self.crop_samples / needed)
            lengths.append(min(valid, self.crop_samples))
            labels.append(int(self.labels[row]) + offset * self.num_classes)
            rows.append(row)
            params.append(drawn)
        longest = max(len(crop) for crop in crops)
        wave = np.zeros((len(crops), max(longest, self.crop_samples)), np.int16)
        for i, crop in enumerate(crops):
            wave[i, : len(crop)] = crop
        hits, misses = (b - a for a, b in zip(before, self._cache_counts(), strict=True))
        return Batch(
            wave=torch.from_numpy(wave),
            num_samples=torch.tensor(lengths, dtype=torch.int64),
            labels=torch.tensor(labels, dtype=torch.int64),
            rows=torch.tensor(rows, dtype=torch.int64),
            params=tuple(params),
            step=draws[0].step,
            group=self.group,
            broken=tuple(broken),
            cache_hits=hits,
            cache_misses=misses,
        )

    def _item(self, draw: Draw, broken: list[Broken]) -> tuple[np.ndarray, int, tuple[Any, ...]]:
        rng = generator(self.seed, "item", draw.step, draw.item)
        params: tuple[Any, ...] = ()
        if self.augmenter:
            strength = 1.0 if self.strength is None else self.strength(draw.step)
            params = self.augmenter.draw(rng, self.crop_samples, strength)
        count = self.crop_samples
        if self.augmenter:
            count = self.augmenter.source_samples(params, count)
        row, place, reason = draw.row, rng.random(), ""
        for attempt in range(MAX_REPLACEMENTS):
            try:
                return self._crop(row, count, place), row, params
            except AudioError as error:
                self._report(row, error, broken)
                reason = f"'{self.utterances[row]}': {error.seen}"
                row = self._replacement(draw, attempt)
        raise DataError(
            f"{MAX_REPLACEMENTS} clips of one class in a row could not be read",
            why=f"the last was {reason}",
            fix="check data.root, and the files with 'glottis prepare' or 'glottis pack'",
            rule="P11",
        )

    def _crop(self, row: int, count: int, place: float) -> np.ndarray:
        """``count`` samples; ``place`` in [0, 1) chooses where they begin."""
        total = self.source.num_samples(row)
        if total <= 0:
            raise AudioError(f"'{self.utterances[row]}' holds no samples")
        if total >= count:
            start = int(place * (total - count + 1))
            crop = self.source.read(row, start, count)
            if len(crop) == count:
                return crop
            total = start + len(crop)  # the header promised more than the file holds
        clip = self.source.read(row, 0, total)
        if len(clip) == 0:
            raise AudioError(f"'{self.utterances[row]}' holds no samples")
        if len(clip) >= count:
            return clip[:count]
        if self.short_clips == "zero":
            return clip
        return np.resize(np.roll(clip, -int(place * len(clip))), count)

    def _replacement(self, draw: Draw, attempt: int) -> int:
        label = int(self.labels[draw.row])
        if label not in self._members:
            self._members[label] = np.flatnonzero(self.labels == label)
        rng = generator(self.seed, "replacement", draw.step, draw.item, attempt)
        return int(rng.choice(self._members[label]))

    def _report(self, row: int, error: AudioError, broken: list[Broken]) -> None:
        if row not in self._reported:
            self._reported.add(row)
            path = self.source.path(row) if isinstance(self.source, FileSource) else ""
            broken.append(Broken.from_error(self.utterances[row], path, error))

    def _cache_counts(self) -> tuple[int, int]:
        cache = self.source.cache if isinstance(self.source, FileSource) else None
        return (cache.hits, cache.misses) if cache is not None else (0, 0)
