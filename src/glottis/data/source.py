"""Where the samples of a clip come from: a packed store, or the audio files themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from glottis.audio import ClipCache, PackedStore, PackItem, load, probe, to_int16
from glottis.data.manifest import Manifest


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
        self.index = store.indices_of(utterances)

    def num_samples(self, row: int) -> int:
        return self.store.num_samples(int(self.index[row]))

    def read(self, row: int, start: int, count: int) -> np.ndarray:
        return self.store.read(int(self.index[row]), start, count)


class FileSource:
    """Clips of audio files, decoded when they are asked for.

    cache_mb: 0 = decode only the crop where the format can seek; otherwise whole decoded clips are
    kept up to this size, in each worker.
    segments: (start, end) in seconds of rows that are a piece of their file (`Manifest.segments`).
    The samples are the same either way, and those of a packed store.
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
        self._headers: dict[int, tuple[int, bool]] = {}

    def path(self, row: int) -> Path:
        return self.root / self.paths[row]

    def num_samples(self, row: int) -> int:
        return self._header(row)[0] if self.cache is None else len(self._cached(row))

    def read(self, row: int, start: int, count: int) -> np.ndarray:
        if self.cache is not None:
            return self._cached(row)[start : start + count]
        total, can_crop = self._header(row)
        if not can_crop or count >= total:
            return self._decode(row)[start : start + count]
        return self._load(row, start / self.sample_rate, count / self.sample_rate)[:count]

    def _segment(self, row: int) -> tuple[float, float] | None:
        return self.segments[row] if self.segments is not None else None

    def _header(self, row: int) -> tuple[int, bool]:
        """(samples at our rate, whether a part of the file is a crop of the clip).

        The length is from the header, or decoded where that does not say it exactly.  A crop of a
        resampled file is not bit-equal to a crop of the resampled clip.
        """
        if row not in self._headers:
            self._headers[row] = self._read_header(row)
        return self._headers[row]

    def _read_header(self, row: int) -> tuple[int, bool]:
        if self._segment(row) is not None:
            return len(self._decode(row)), False
        info = probe(self.path(row))
        same_rate = info.sample_rate == self.sample_rate
        if info.num_samples is not None and (same_rate or info.container in ("wav", "flac")):
            return info.num_samples * self.sample_rate // info.sample_rate, same_rate
        return len(self._decode(row)), same_rate  # lossy: a few samples more or fewer

    def _cached(self, row: int) -> np.ndarray:
        assert self.cache is not None
        return self.cache.get(row, lambda: self._decode(row))

    def _decode(self, row: int) -> np.ndarray:
        start, end = self._segment(row) or (0.0, None)
        return self._load(row, start, None if end is None else end - start)

    def _load(self, row: int, start_s: float, duration_s: float | None) -> np.ndarray:
        audio = load(
            self.path(row),
            self.sample_rate,
            start_s=start_s,
            duration_s=duration_s,
            inspect=False,  # nobody would see the warnings
        )
        return to_int16(audio.samples)


def pack_items(manifest: Manifest, root: Path) -> list[PackItem]:
    """What `glottis.audio.pack` needs of a manifest whose paths start from ``root``."""
    names, paths = manifest.column("utterance").tolist(), manifest.column("path").tolist()
    pieces = manifest.segments() or [None] * len(manifest)
    return [
        PackItem(name, root / path, *(piece or ()))
        for name, path, piece in zip(names, paths, pieces, strict=True)
    ]
