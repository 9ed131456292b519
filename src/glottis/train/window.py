"""Statistics between two log lines: summed on the device, read once."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor

from glottis.data.batch import Batch
from glottis.train import distributed
from glottis.train.shares import PREFIX
from glottis.train.step import Stats

HISTORY = 50
COUNTED = ("skipped", "overflow")


class Window:
    """Sums of the statistics since the last log line, on the device; read once per line.

    history: the statistics of the last 50 steps one by one, on the device, read only if asked for.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.history: deque[tuple[int, Stats]] = deque(maxlen=HISTORY)
        self._told_first = False
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self._sums: dict[str, Tensor] = {}
        self._first_bad = torch.full((), math.inf, device=self.device)
        self._once: dict[str, Tensor] = {}
        self._steps = self._clips = self._hits = self._misses = 0
        self._began, self._waited = time.monotonic(), 0.0

    def waiting(self) -> _Stopwatch:
        """A block that waits for data."""
        return _Stopwatch(self)

    def add(self, stats: Stats, batch: Batch, step: int) -> None:
        """Count a step; a skipped one counts only as skipped (rule H2)."""
        applied = 1 - stats["skipped"]
        for name, value in stats.items():
            if name.startswith(PREFIX):  # of one step between two lines
                self._once[name] = value
                continue
            kept = value if name in COUNTED else torch.where(applied > 0, value, 0.0)
            self._sums[name] = self._sums.get(name, torch.zeros((), device=self.device)) + kept
        bad = stats["skipped"] - stats.get("overflow", 0)
        self._first_bad = torch.where(bad > 0, self._first_bad.clamp(max=step), self._first_bad)
        self.history.append((step, stats))
        self._steps += 1
        self._clips += len(batch)
        self._hits += batch.cache_hits
        self._misses += batch.cache_misses

    def read(self) -> dict[str, float]:
        """Means over the applied steps (none without one), and the speed; the only wait."""
        both = {**self._sums, **self._once}
        means = distributed.mean(torch.stack([v.float() for v in both.values()]))
        first = distributed.least(self._first_bad)
        *numbers, first_bad = torch.cat([means, first[None]]).tolist()
        found: Mapping[str, float] = dict(zip(both, numbers, strict=True))
        sums = {name: found[name] for name in self._sums}
        skipped = sums.get("skipped", 0.0)
        applied = self._steps - skipped
        averaged = [name for name in sums if name not in COUNTED and applied > 0]
        values = {name: sums[name] / applied for name in averaged}
        values |= {n: found[n] for n in self._once if math.isfinite(found[n])}  # not of a bad step
        seconds = max(1e-9, time.monotonic() - self._began)
        values["skipped_steps"] = skipped
        if "overflow" in sums:
            values["overflow_steps"] = sums["overflow"]
        if math.isfinite(first_bad):
            values["first_skipped"] = first_bad
        if self.history and self.history[0][0] == 1 and not self._told_first:
            self._told_first = True
            loss = float(self.history[0][1]["loss"])
            values |= {"first_loss": loss} if math.isfinite(loss) else {}
        values["clips_per_s"] = self._clips * distributed.world() / seconds
        values["data_wait"] = self._waited / seconds
        if self._hits + self._misses:
            values["cache_hit_rate"] = self._hits / (self._hits + self._misses)
        self.restart()
        return values

    def last_steps(self) -> list[dict[str, float | str]]:
        """The statistics of the last 50 steps, oldest first; "nan" and "inf" are words."""
        return [
            {"step": step, **{name: _plain(float(value)) for name, value in stats.items()}}
            for step, stats in self.history
        ]


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


class _Stopwatch:
    def __init__(self, window: Window) -> None:
        self.window = window

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.window._waited += time.monotonic() - self.began
