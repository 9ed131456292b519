"""Statistics between two log lines: summed on the device, read once."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from glottis.data.batch import Batch
from glottis.train import distributed
from glottis.train.shares import PREFIX
from glottis.train.step import Stats


class Window:
    """Sums of the statistics since the last log line, on the device; read once per line."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self._sums: dict[str, Tensor] = {}
        self._once: dict[str, Tensor] = {}
        self._steps = self._clips = self._hits = self._misses = 0
        self._began, self._waited = time.monotonic(), 0.0

    def waiting(self) -> _Stopwatch:
        """A block that waits for data."""
        return _Stopwatch(self)

    def add(self, stats: Stats, batch: Batch) -> None:
        """Count a step; a skipped one counts only as skipped (rule H2)."""
        applied = 1 - stats["skipped"]
        for name, value in stats.items():
            if name.startswith(PREFIX):  # of one step between two lines
                self._once[name] = value
                continue
            kept = value if name == "skipped" else torch.where(applied > 0, value, 0.0)
            self._sums[name] = self._sums.get(name, torch.zeros((), device=self.device)) + kept
        self._steps += 1
        self._clips += len(batch)
        self._hits += batch.cache_hits
        self._misses += batch.cache_misses

    def read(self) -> dict[str, float]:
        """Means over the applied steps, and the speed; the only wait for the device."""
        both = {**self._sums, **self._once}
        numbers = distributed.mean(torch.stack([v.float() for v in both.values()])).tolist()
        found: Mapping[str, float] = dict(zip(both, numbers, strict=True))
        sums = {name: found[name] for name in self._sums}
        skipped = sums.get("skipped", 0.0)
        applied = max(1.0, self._steps - skipped)
        values = {name: total / applied for name, total in sums.items() if name != "skipped"}
        values |= {n: found[n] for n in self._once if math.isfinite(found[n])}  # not of a bad step
        seconds = max(1e-9, time.monotonic() - self._began)
        values["skipped_steps"] = skipped
        values["clips_per_s"] = self._clips * distributed.world() / seconds
        values["data_wait"] = self._waited / seconds
        if self._hits + self._misses:
            values["cache_hit_rate"] = self._hits / (self._hits + self._misses)
        self.restart()
        return values


class _Stopwatch:
    def __init__(self, window: Window) -> None:
        self.window = window

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.window._waited += time.monotonic() - self.began
