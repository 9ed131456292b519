"""Miss and false-accept rates at every distinct threshold, from one sort.

A trial is accepted when ``score >= threshold``.  Trials with equal scores are accepted or rejected
together, so a threshold is one of the distinct scores, or +inf (reject everything).  All metrics of
this room are functions of these rates; the bootstrap re-weights the trials without sorting again.

Legend: N trials of one class, P operating points (distinct scores + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from glottis.score._checks import ArrayLike, FloatArray, IntArray, checked_scores


@dataclass(frozen=True, eq=False)
class Rates:
    """The achievable operating points, from "accept everything" to "reject everything".

    thresholds: (P,) ascending, the last one is +inf.
    miss: (P,) share of targets below the threshold, from 0 to 1.
    false_accept: (P,) share of non-targets at or above it, from 1 to 0.
    """

    thresholds: FloatArray
    miss: FloatArray
    false_accept: FloatArray


@dataclass(frozen=True, eq=False)
class Ladder:
    """The sorted scores of all classes and their distinct thresholds; made by `ladder`.

    scores: per class (N,) ascending.  orders: per class (N,), position of each in what was given.
    thresholds: (P,).  below: per class (P,), how many of its scores lie below each threshold.
    """

    scores: tuple[FloatArray, ...]
    orders: tuple[IntArray, ...]
    thresholds: FloatArray
    below: tuple[IntArray, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Trials per class."""
        return tuple(len(scores) for scores in self.scores)

    @cached_property
    def surprise(self) -> tuple[FloatArray, FloatArray]:
        """ln(1 + e^-s) of each target and ln(1 + e^s) of each non-target, read as ratios."""
        return np.logaddexp(0.0, -self.scores[0]), np.logaddexp(0.0, self.scores[1])

    def corners(self) -> Ladder:
        """Only the thresholds at which the class of the trials changes.

        Between them the curve of miss against false accept is straight whatever the weights of
        the trials, so that minima and crossings stay exact; it is several times shorter.
        """
        present = np.stack([np.diff(below) > 0 for below in self.below])  # (classes, P - 1)
        pure = present.sum(axis=0) == 1
        alike = (present[:, 1:] == present[:, :-1]).all(axis=0) & pure[1:] & pure[:-1]
        keep = np.concatenate([[True], ~alike, [True]])
        below = tuple(counts[keep] for counts in self.below)
        return replace(self, thresholds=self.thresholds[keep], below=below)


def ladder(*groups: ArrayLike, names: Sequence[str] = ("target", "nontarget", "spoof")) -> Ladder:
    """Sort the scores of two or three classes, targets first.  O(N log N), once.

    names: what the classes are called in a `ResultError` (empty class, scores not finite).
    """
    checked = [checked_scores(group, name) for group, name in zip(groups, names, strict=False)]
    orders = tuple(np.argsort(group, kind="stable") for group in checked)
    scores = tuple(group[order] for group, order in zip(checked, orders, strict=True))
    thresholds = np.append(np.unique(np.concatenate(scores)), np.inf)
    below = tuple(np.searchsorted(group, thresholds, side="left") for group in scores)
    return Ladder(scores, orders, thresholds, below)


Weights = tuple[IntArray, ...]


class Sample:
    """The trials of a ladder, each counted as often as ``weights`` says (None: once).

    weights: per class (N,) whole numbers, in the order in which the scores were given.
    What several metrics share is computed once per sample.
    """

    def __init__(self, trials: Ladder, weights: Weights | None = None) -> None:
        self.ladder = trials
        self._ordered: tuple[IntArray, ...] | None = None
        self._sums: tuple[IntArray, ...] | None = None
        if weights is not None:
            pairs = zip(weights, trials.orders, strict=True)
            self._ordered = tuple(weight[order] for weight, order in pairs)
            self._sums = tuple(_running_sum(weight) for weight in self._ordered)

    def count_below(self, group: int, positions: IntArray) -> IntArray:
        """Weighted number among the first ``positions`` scores of a class."""
        return positions if self._sums is None else self._sums[group][positions]

    def below(self, group: int) -> IntArray:
        """(P,) trials of a class below each threshold; the last one is all of them."""
        return self.count_below(group, self.ladder.below[group])

    @cached_property
    def rates(self) -> Rates:
        """Miss rate of class 0 and false-accept rate of class 1."""
        rejected = self.below(0)
        return Rates(self.ladder.thresholds, rejected / rejected[-1], self.accepted(1))

    def accepted(self, group: int) -> FloatArray:
        """(P,) share of a class at or above each threshold; exactly 0 at +inf."""
        rejected = self.below(group)
        share: FloatArray = (rejected[-1] - rejected) / rejected[-1]
        return share

    def pooled(self, *groups: int) -> Rates:
        """Miss rate of class 0 and false-accept rate of several classes taken as one."""
        rejected = np.sum([self.below(group) for group in groups], axis=0)
        share: FloatArray = (rejected[-1] - rejected) / rejected[-1]
        return Rates(self.ladder.thresholds, self.rates.miss, share)

    def share_below(self, group: int, threshold: float) -> float:
        """Share of a class below any one threshold."""
        scores = self.ladder.scores[group]
        positions = np.array([np.searchsorted(scores, threshold, side="left"), len(scores)])
        count, total = self.count_below(group, positions)
        return float(count / total)

    def mean(self, group: int, values: FloatArray) -> float:
        """Mean over a class of values given in the order of ``ladder.scores``."""
        if self._ordered is None:
            return float(values.mean())
        weights = self._ordered[group]
        return float(np.dot(values, weights.astype(np.float64)) / weights.sum())


def rates(target: ArrayLike, nontarget: ArrayLike) -> Rates:
    """The operating points of two sets of scores; higher scores mean target / bona fide."""
    return Sample(ladder(target, nontarget)).rates


def _running_sum(weights: IntArray) -> IntArray:
    sums = np.zeros(len(weights) + 1, np.int64)
    np.cumsum(weights, out=sums[1:])
    return sums
