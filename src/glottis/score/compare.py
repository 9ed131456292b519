"""Are two systems different?  Paired bootstrap over speakers on the same trials.

Every draw weights the trials of both systems alike, so that what is common to them (hard speakers,
bad recordings) cancels.  If the 95 % interval of the difference contains 0, the list cannot tell
the systems apart and neither may be called better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from glottis.errors import ResultError
from glottis.rng import generator
from glottis.score._checks import ArrayLike, BoolArray, split_by_class
from glottis.score.intervals import Metric, draws_for, interval_ends, resampling_for, usable_draws
from glottis.score.rates import Sample, ladder
from glottis.score.voices import Voices


@dataclass(frozen=True)
class Comparison:
    """One metric of two systems on the same trials; difference = b - a, ratio = b / a.

    low, high: 95 % interval of the difference; None where no interval can be given.
    ratio: None where a is 0; ratio_low, ratio_high: its interval from the same draws, None too
    where a draw has no ratio.
    """

    metric: str
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    method: str
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None

    @property
    def distinguishable(self) -> bool:
        """True if the interval exists and does not contain 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    def verdict(self, name_a: str = "A", name_b: str = "B") -> str:
        """One sentence; it says "better" only if the interval excludes 0."""
        if self.low is None or self.high is None:
            return f"{self.metric}: no interval ({self.method})"
        span = f"difference {self.difference:+.4f}, 95 % interval [{self.low:.4f}, {self.high:.4f}]"
        if not self.distinguishable:
            return f"{self.metric}: these trials do not tell {name_a} and {name_b} apart ({span})"
        return f"{self.metric}: {name_a if self.difference > 0 else name_b} is better ({span})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"distinguishable": self.distinguishable}


def compare(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    is_target: BoolArray,
    voices: Voices | None,
    metrics: Mapping[str, Metric],
    *,
    seed: int = 0,
    draws: int | None = None,
) -> dict[str, Comparison]:
    """Paired comparison of two systems; all arrays (N,) over the same trials in the same order.

    metrics: lower is better (`glottis.score.metrics`); voices: as for `intervals.measure`.
    """
    if np.shape(scores_a) != np.shape(scores_b):
        raise ResultError(
            f"{np.size(scores_a)} scores against {np.size(scores_b)}",
            why="a paired comparison needs both systems on the same trials",
            fix="score the same list with both",
            rule="E6",
        )
    trials = [ladder(*split_by_class(scores, is_target)[:2]) for scores in (scores_a, scores_b)]
    whole = [Sample(one) for one in trials]
    values = {name: [metric.value(one) for one in whole] for name, metric in metrics.items()}
    resampling = resampling_for(trials[0], voices)
    if resampling is None:
        method = "only n: fewer than 5 voices"
        return {n: _without(n, a, b, method) for n, (a, b) in values.items()}
    corners = [one.corners() for one in trials]
    rng = generator(seed, "compare")
    wanted = draws_for(np.size(scores_a)) if draws is None else draws
    rows: list[list[tuple[float, float]]] = []
    for weights in usable_draws(resampling, wanted, rng):
        first, second = (Sample(one, weights) for one in corners)
        rows.append([(m.value(first), m.value(second)) for m in metrics.values()])
    method = f"paired {resampling.method}, {len(rows)} draws"
    results = {}
    for index, (name, (a, b)) in enumerate(values.items()):
        doubt = metrics[name].doubt(trials[0])
        if doubt:
            results[name] = _without(name, a, b, f"no interval: {doubt}")
            continue
        drawn_a, drawn_b = np.array([row[index] for row in rows]).T
        ends = interval_ends(b - a, drawn_b - drawn_a, resampling.units)
        ratio: tuple[float | None, float | None] = (None, None)
        if a > 0 and np.all(drawn_a > 0):
            ratio = interval_ends(b / a, drawn_b / drawn_a, resampling.units)
        found = _without(name, a, b, method)
        results[name] = replace(
            found, low=ends[0], high=ends[1], ratio_low=ratio[0], ratio_high=ratio[1]
        )
    return results


def _without(name: str, a: float, b: float, method: str) -> Comparison:
    """The values without an interval."""
    return Comparison(name, a, b, b - a, None, None, method, b / a if a > 0 else None)
