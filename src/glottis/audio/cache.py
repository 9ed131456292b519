"""Decoded clips kept in memory, up to a number of bytes: for corpora that are not packed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from glottis.errors import ConfigError

Clip = NDArray[np.int16]


class ClipCache:
    """Least recently used int16 clips leave first.

    max_mb: mebibytes (2^20 bytes) of samples; 0 keeps nothing.
    hits, misses, bytes: counters; each process of a loader has its own cache and counters.
    A pickled cache arrives empty, with the same bound.
    """

    def __init__(self, max_mb: float) -> None:
        if not max_mb >= 0:
            raise ConfigError(f"the cache size must be 0 or more mebibytes, not {max_mb}")
        self.max_bytes = int(max_mb * 2**20)
        self.hits = self.misses = self.bytes = 0
        self._clips: OrderedDict[Hashable, Clip] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Clip]) -> Clip:
        """The clip of ``key``, from ``make()`` if it is not there.  Read-only, since it is shared.

        What ``make`` raises comes through, and nothing is stored.
        """
        with self._lock:
            clip = self._clips.get(key)
            if clip is not None:
                self._clips.move_to_end(key)
                self.hits += 1
                return clip
            self.misses += 1
        clip = make()  # not under the lock: decoding takes a thousand times longer
        assert clip.dtype == np.int16, "the cache is for int16 clips"
        if clip.base is not None and self.max_bytes:
            clip = clip.copy()  # a view would keep its whole base alive, beyond the bound
        clip.setflags(write=False)
        with self._lock:
            if clip.nbytes <= self.max_bytes and key not in self._clips:
                self._clips[key] = clip
                self.bytes += clip.nbytes
                while self.bytes > self.max_bytes:
                    self.bytes -= self._clips.popitem(last=False)[1].nbytes
        return clip

    @property
    def hit_rate(self) -> float:
        """Hits / look-ups; 0 before the first look-up."""
        return self.hits / max(1, self.hits + self.misses)

    def __len__(self) -> int:
        return len(self._clips)

    def __reduce__(self) -> tuple[object, ...]:
        return (ClipCache, (self.max_bytes / 2**20,))
