"""Some trials of a list: their counts, their numbers with intervals, and when to hide a number.

Fewer than 100 trials, one class only, or fewer than 5 voices on a side show only counts (E11).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from glottis.errors import ResultError
from glottis.score._checks import (
    ArrayLike,
    BoolArray,
    FloatArray,
    Names,
    checked_scores,
    refuse_constant,
)
from glottis.score.eer import crossing
from glottis.score.intervals import MIN_VOICES, Measured, Metric, measure
from glottis.score.rates import Sample, ladder
from glottis.score.results import Cell
from glottis.score.voices import Voices

MIN_TRIALS = 100


@dataclass(frozen=True)
class Resampled:
    """How intervals are drawn: the seed, the number of draws (None: by the number of trials), and
    the run that the numbers belong to."""

    seed: int = 0
    draws: int | None = None
    run_id: str | None = None


class Part:
    """Some trials of a list, with the voices in them."""

    def __init__(
        self, scores: FloatArray, first: BoolArray, voices: Voices | None, names: tuple[str, str]
    ) -> None:
        self.scores, self.first, self.voices, self.names = scores, first, voices, names
        self.n = {"trials": len(scores), names[0]: int(first.sum()), names[1]: int((~first).sum())}
        if voices is not None:
            self.n |= voices.sides
        self._sample: Sample | None = None

    @property
    def sample(self) -> Sample:
        if self._sample is None:
            groups = self.scores[self.first], self.scores[~self.first]
            self._sample = Sample(ladder(*groups, names=self.names))
        return self._sample

    def measure(self, metrics: Mapping[str, Metric], how: Resampled) -> dict[str, Measured]:
        return measure(
            metrics,
            self.sample.ladder,
            self.voices,
            n=self.n,
            seed=how.seed,
            draws=how.draws,
            run_id=how.run_id,
        )

    def points(self, metrics: Mapping[str, Metric]) -> dict[str, float]:
        return {name: metric.value(self.sample) for name, metric in metrics.items()}

    def cell(
        self, condition: str, value: str, metrics: Mapping[str, Metric], how: Resampled
    ) -> Cell:
        note = self._too_small()
        if note:
            return Cell(condition, value, self.n, {}, note)
        return Cell(condition, value, self.n, self.measure(metrics, how))

    def _too_small(self) -> str:
        empty = [name for name in self.names if self.n[name] == 0]
        if empty:
            return f"no {empty[0]}"
        if self.n["trials"] < MIN_TRIALS:
            return f"fewer than {MIN_TRIALS} trials"
        if self.voices is not None and self.voices.fewest < MIN_VOICES:
            sides = self.voices.sides
            side = min(sides, key=lambda name: sides[name])
            return f"only {sides[side]} {side}"
        return ""

    def notes(self) -> list[str]:
        """Rule E2: what an equal error rate can mean besides quality."""
        value, _ = crossing(self.sample.rates)
        if value > 0.55:
            return [f"[E2] EER {100 * value:.1f} %: are labels or the sign of the scores flipped?"]
        if value >= 0.45:
            return [f"[E2] EER {100 * value:.1f} %: the scores are no better than chance"]
        if value == 0.0 and self.n[self.names[0]] > 500:
            return [
                f"[E2] EER 0 on {self.n[self.names[0]]} {self.names[0]}: look for leakage "
                "between training and this list"
            ]
        return []


def checked_for(scores: ArrayLike, count: int) -> FloatArray:
    """The scores of a list of ``count`` trials: all there, finite, not all equal (rule E1)."""
    values = checked_scores(scores, "trial")
    if len(values) != count:
        raise ResultError(
            f"{len(values)} scores for {count} trials",
            why="every trial of the list needs exactly one score",
            fix="score the whole list again; nothing may be skipped",
            rule="E1",
        )
    refuse_constant(values)
    return values


def per_item(column: Names, count: int, name: str) -> np.ndarray:
    """A column of text as (count,) objects; None is empty text."""
    values = np.array(["" if value is None else str(value) for value in column], dtype=object)
    if len(values) != count:
        raise ResultError(f"{len(values)} values of '{name}' for {count} utterances")
    return values


def distinct(column: np.ndarray) -> list[str]:
    """The different values of a column, sorted."""
    return sorted(set(column.tolist()))
