"""Where the samples of a clip come from: a packed store, or the audio files themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from glottis.audio import ClipCache, PackedStore, load, probe, to_int16
from glottis.errors import AudioError, DataError


class ClipSource(Protocol):
    """Random access to clips by row of a table; all at one sample rate, as int16."""

    sample_rate: int

    def num_samples(self, row: int) -> int:
        """Length of the clip."""
        ...

    def read(self, row: int, start: int, count: int) -> np.ndarray:
        """Samples ``start .. start + count`` of the clip, int16, fewer at its end."""
        ...


class StoreSource:
    """Clips of a packed store; a crop is a memory-mapped slice.

    utterances: ids of the rows, all of which must be in the store.
    """

    def __init__(self, store: PackedStore, utterances: Sequence[str]) -> None:
        self.store, self.sample_rate = store, store.sample_rate
        known = {utterance: index for index, utterance in enumerate(store.utterances)}
        missing = [utterance for utterance in utterances if utterance not in known]
        if missing:
            shown = ", ".join(missing[:5])
            raise DataError(
                f"{len(missing)} of {len(utterances)} utterances are not in the packed store: "
                f"{shown}{' ...' if len(missing) > 5 else ''}",
                why="they were broken when it was packed, or it is the store of another corpus",
                fix="see quarantine.jsonl in the store; pack again or remove them from the list",
            )
        self.index = np.array([known[utterance] for utterance in utterances], np.int64)

    def num_samples(self, row: int) -> int:
        return self.store.num_samples(int(self.index[row]))

    def read(self, row: int, start: int, count: int) -> np.ndarray:
        return self.store.read(int(self.index[row]), start, count)


class FileSource:
    """Clips of audio files, decoded when they are asked for.

    cache_mb: 0 = seek and decode only the crop (wav, flac); otherwise whole decoded clips are kept
    up to this size, in each worker.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        sample_rate: int,
        cache_mb: float,
        segments: Sequence[tuple[float, float] | None] | None = None,
    ) -> None:
        self.root, self.paths, self.sample_rate = root, paths, sample_rate
        self.segments = segments
        self.cache = ClipCache(cache_mb) if cache_mb > 0 else None
        self._lengths: dict[int, tuple[int, int]] = {}

    def path(self, row: int) -> Path:
        return self.root / self.paths[row]

    def num_samples(self, row: int) -> int:
        if self.cache is not None or self._segment(row) is not None:
            return len(self._whole(row))
        return self._header(row)[0]

    def read(self, row: int, start: int, count: int) -> np.ndarray:
        if self.cache is not None or self._segment(row) is not None:
            return self._whole(row)[start : start + count]
        total, file_rate = self._header(row)
        if file_rate != self.sample_rate or count >= total:
            # a resampled crop is not bit-equal to a crop of the resampled clip: decode it all
            return self._decode(row)[start : start + count]
        audio = load(
            self.path(row),
            self.sample_rate,
            start_s=start / self.sample_rate,
            duration_s=count / self.sample_rate,
        )
        return to_int16(audio.samples)[:count]

    def _segment(self, row: int) -> tuple[float, float] | None:
        return self.segments[row] if self.segments is not None else None

    def _header(self, row: int) -> tuple[int, int]:
        """(samples at our rate, rate of the file), from the header; decoded if it does not say."""
        if row not in self._lengths:
            info = probe(self.path(row))
            if info.num_samples is None or info.sample_rate != self.sample_rate:
                self._lengths[row] = (len(self._decode(row)), info.sample_rate)
            else:
                self._lengths[row] = (info.num_samples, info.sample_rate)
        return self._lengths[row]

    def _whole(self, row: int) -> np.ndarray:
        if self.cache is None:
            return self._decode(row)
        return self.cache.get(row, lambda: self._decode(row))

    def _decode(self, row: int) -> np.ndarray:
        segment = self._segment(row)
        if segment is None:
            audio = load(self.path(row), self.sample_rate)
        else:
            start, end = segment
            audio = load(self.path(row), self.sample_rate, start_s=start, duration_s=end - start)
        if len(audio.samples) == 0:
            raise AudioError(f"{self.path(row)} holds no samples")
        return to_int16(audio.samples)
