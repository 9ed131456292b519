"""95 % intervals of error rates and costs, from a bootstrap over speakers.

**Speaker bootstrap** (both sides have at least 10 voices).  One draw takes as many voices as there
are, with replacement; voice v is drawn m_v times.  A trial between two voices counts m_v * m_w
times, a trial whose two sides are the *same* voice (a target trial, or a spoofing trial, which has
one voice) counts m_v times: its voice is one observation, not two.  The same draw weights all
classes, so what a hard speaker does to targets and non-targets stays together.  (Resampling the two
sides independently, or counting m_v * m_v for targets, about triples the variance of the miss
rate; the coverage is tested in ``tests/score/test_intervals.py``.)

**Trial bootstrap** (5 to 9 voices, or voices unknown): trials of each class with replacement.  It
ignores that one speaker's trials belong together, is too narrow, and says so in its name.

Below 5 voices nothing but the count is given.

From the draws the bias-corrected, expanded percentile interval is taken: with z0 = Phi^-1(share of
draws below the measured value), the ends are the quantiles at Phi(2 z0 -+ z), where z =
sqrt(n / (n - 1)) t_{0.975, n-1} instead of 1.96 and n = voices on the side with the fewest.  The
expansion repairs the short intervals of few voices (T. Hesterberg, "What teachers should know about
the bootstrap", The American Statistician 69 (2015), section 5); z0 repairs metrics with a minimum
inside (minDCF, min Cllr), whose draws are optimistic once more (B. Efron, "Nonparametric standard
errors and confidence intervals", Canadian Journal of Statistics 9 (1981)).  The interval is widened
to hold the measured value if it does not.  An EER of 0 has no error to resample: its upper end is
the exact binomial bound 1 - 0.025^(1/n).

No interval is given where it would not hold what it promises: for a minimum over thresholds when a
single trial weighs more than 0.02 of it (minDCF(0.01) needs 4,950 non-targets; below, the minimum
itself is optimistic), and for min Cllr, which fits a calibration to the list it is measured on.
``benchmarks/interval_coverage.py`` measures the coverage.

Source of the two-sided form: N. Poh and S. Bengio, "Estimating the confidence interval of expected
performance curve in biometric authentication using joint bootstrap", ICASSP 2007; A. Owen, "The
pigeonhole bootstrap", Annals of Applied Statistics 1 (2007).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from glottis.rng import generator
from glottis.score._checks import FloatArray
from glottis.score.rates import Ladder, Sample, Weights
from glottis.score.voices import Voices

MIN_VOICES_SPEAKER_BOOTSTRAP = 10
MIN_VOICES = 5
MAX_DRAWS, MIN_DRAWS, TRIAL_DRAWS = 1000, 200, 10**8
"""Draws are as many as keep draws x trials below `TRIAL_DRAWS`, within the two limits."""


@dataclass(frozen=True)
class Metric:
    """A number of a sample; lower is better.

    value: of a (weighted) sample.  doubt: why no bootstrap interval can be trusted for these
    trials, empty where one can.
    """

    value: Callable[[Sample], float]
    doubt: Callable[[Ladder], str] = lambda trials: ""


@dataclass(frozen=True)
class Measured:
    """A measured number: value (None: too little data), 95 % interval, counts, method, run.

    Rates are fractions.  low and high are None where no interval can be given.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: Mapping[str, int] = field(default_factory=dict)
    method: str = ""
    run_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": dict(self.n),
            "method": self.method,
            "run_id": self.run_id,
        }

    def text(self, percent: bool = False) -> str:
        """``7.53 % [6.10, 9.02]``; ``-`` where there is too little data."""
        if self.value is None:
            return "-"
        scale, digits, unit = (100.0, 2, " %") if percent else (1.0, 4, "")
        shown = f"{self.value * scale:.{digits}f}{unit}"
        if self.low is None or self.high is None:
            return shown
        return f"{shown} [{self.low * scale:.{digits}f}, {self.high * scale:.{digits}f}]"


class Resampling(Protocol):
    """How often each trial counts in one draw.

    units: independent things that are drawn (the fewest on any side); method: in words.
    """

    units: int
    method: str

    def draw(self, rng: np.random.Generator) -> Weights:
        """Counts per trial, class by class."""
        ...


class SpeakerBootstrap:
    """Draws voices; see the head of this file for the weight of a trial."""

    def __init__(self, voices: Voices) -> None:
        self.voices, self.units = voices, voices.fewest
        counts = ", ".join(f"{count} {side}" for side, count in voices.sides.items())
        self.method = f"speaker bootstrap over {counts}"
        pairs = zip(voices.first, voices.second, strict=True)
        self._two_voices = tuple(first != second for first, second in pairs)

    def draw(self, rng: np.random.Generator) -> Weights:
        count = self.voices.num_voices
        times = np.bincount(rng.integers(0, count, count), minlength=count)
        weights = []
        groups = zip(self.voices.first, self.voices.second, self._two_voices, strict=True)
        for first, second, two_voices in groups:
            weight = times[first]
            if two_voices.all():
                weight = weight * times[second]
            elif two_voices.any():
                weight = weight * np.where(two_voices, times[second], 1)
            weights.append(weight)
        return tuple(weights)


class TrialBootstrap:
    """Draws trials of each class; blind to the speakers they share."""

    def __init__(self, sizes: tuple[int, ...], reason: str) -> None:
        self.sizes, self.units = sizes, min(sizes)
        self.method = f"trial bootstrap ({reason}; too narrow when speakers repeat)"

    def draw(self, rng: np.random.Generator) -> Weights:
        return tuple(
            np.bincount(rng.integers(0, size, size), minlength=size) for size in self.sizes
        )


def resampling_for(trials: Ladder, voices: Voices | None) -> Resampling | None:
    """The honest resampling for these trials; None where only the counts may be shown."""
    if voices is None:
        return TrialBootstrap(trials.sizes, "speakers unknown")
    if voices.fewest < MIN_VOICES:
        return None
    if voices.fewest < MIN_VOICES_SPEAKER_BOOTSTRAP:
        side = min(voices.sides, key=lambda name: voices.sides[name])
        return TrialBootstrap(trials.sizes, f"only {voices.fewest} {side}")
    return SpeakerBootstrap(voices)


def measure(
    metrics: Mapping[str, Metric],
    trials: Ladder,
    voices: Voices | None,
    *,
    n: Mapping[str, int],
    seed: int = 0,
    draws: int | None = None,
    run_id: str | None = None,
) -> dict[str, Measured]:
    """Every metric with its interval, all from the same draws.

    n: counts that are shown with the numbers; draws: None = chosen by the number of trials.
    """
    resampling = resampling_for(trials, voices)
    if resampling is None:
        assert voices is not None
        few = min(voices.sides, key=lambda name: voices.sides[name])
        method = f"only n: {voices.fewest} {few}, fewer than {MIN_VOICES}"
        return {name: Measured(None, n=n, method=method, run_id=run_id) for name in metrics}
    count = draws_for(sum(trials.sizes)) if draws is None else draws
    drawn = {name: metric for name, metric in metrics.items() if not metric.doubt(trials)}
    table = bootstrap(drawn, trials, resampling, count, generator(seed, "bootstrap"))
    whole = Sample(trials)
    measured = {}
    for name, metric in metrics.items():
        value, doubt = metric.value(whole), metric.doubt(trials)
        if doubt:
            measured[name] = Measured(value, None, None, n, f"no interval: {doubt}", run_id)
            continue
        low, high, method = _ends(name, value, table[name], resampling)
        method = f"{method}, {len(table[name])} draws"
        measured[name] = Measured(value, low, high, n, method, run_id)
    return measured


def draws_for(num_trials: int) -> int:
    """1000 draws up to 100,000 trials, fewer above, never below 200."""
    return int(np.clip(TRIAL_DRAWS // max(num_trials, 1), MIN_DRAWS, MAX_DRAWS))


def bootstrap(
    metrics: Mapping[str, Metric],
    trials: Ladder,
    resampling: Resampling,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, FloatArray]:
    """(draws,) values of each metric."""
    corners = trials.corners()
    rows: list[list[float]] = []
    for weights in usable_draws(resampling, draws, rng):
        sample = Sample(corners, weights)
        rows.append([metric.value(sample) for metric in metrics.values()])
    columns = np.array(rows, np.float64).reshape(len(rows), len(metrics))
    return {name: columns[:, index] for index, name in enumerate(metrics)}


def usable_draws(resampling: Resampling, draws: int, rng: np.random.Generator) -> Iterator[Weights]:
    """``draws`` weightings; one that leaves a class empty is taken again (at most as often)."""
    made = 0
    for _ in range(2 * draws):
        weights = resampling.draw(rng)
        if all(weight.any() for weight in weights):
            made += 1
            yield weights
        if made == draws:
            return


def interval_ends(value: float, values: FloatArray, units: int) -> tuple[float, float]:
    """The 95 % interval for ``value`` from its bootstrap draws, over ``units`` voices or trials."""
    below = (np.mean(values < value) + np.mean(values <= value)) / 2
    bias = ndtri(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values)))
    wide = half_width(units)
    low, high = np.quantile(values, ndtr([2 * bias - wide, 2 * bias + wide]))
    return min(float(low), value), max(float(high), value)


def half_width(units: int) -> float:
    """What replaces 1.96 when only ``units`` independent things were seen."""
    if units < 2:
        return math.inf
    return math.sqrt(units / (units - 1)) * float(stdtrit(units - 1, 0.975))


def _ends(
    name: str, value: float, values: FloatArray, resampling: Resampling
) -> tuple[float | None, float | None, str]:
    method = resampling.method
    if name.endswith("eer") and value == 0.0:
        bound = 1.0 - 0.025 ** (1.0 / resampling.units)
        return 0.0, bound, f"no error seen, exact binomial bound over {resampling.units} units"
    if len(values) < 2 or values.min() == values.max():
        return None, None, f"{method}: every draw gives the same value, no interval"
    low, high = interval_ends(value, values, resampling.units)
    return low, high, method
