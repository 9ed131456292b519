"""Equal error rate: ours, and the two conventions that published numbers were computed with.

- ``crossing`` (headline): the exact crossing of miss = false accept on the polygon through the
  achievable operating points; ties are grouped, so equal scores for all trials give 0.5.
- ``asvspoof``: mean of the two rates at the closest point of a list in which ties are *not* grouped
  and targets come first (evaluation code of ASVspoof 2019 and of clovaai/aasist).
- ``clovaai``: the larger of the two rates at the closest point of a receiver operating curve whose
  collinear points have been dropped (voxceleb_trainer with scikit-learn's roc_curve).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from glottis.errors import ConfigError
from glottis.score._checks import ArrayLike
from glottis.score.rates import Ladder, Rates, Sample, ladder

Convention = Literal["crossing", "asvspoof", "clovaai"]


@dataclass(frozen=True)
class EER:
    """value: a fraction; threshold: in score units, accept when ``score >= threshold``
    (``asvspoof``: accept when ``score > threshold``, as that code counts)."""

    value: float
    threshold: float
    convention: Convention = "crossing"


def eer(target: ArrayLike, nontarget: ArrayLike, convention: Convention = "crossing") -> EER:
    """The equal error rate of two sets of scores (higher = target / bona fide), a fraction.

    The threshold is the achievable one at which miss and false-accept rate are closest.
    Raises `ResultError` for an empty class or a score that is not finite.
    """
    trials = ladder(target, nontarget)
    if convention == "crossing":
        return EER(*crossing(Sample(trials).rates))
    if convention == "asvspoof":
        return EER(*_asvspoof(trials), convention)
    if convention == "clovaai":
        return EER(*_clovaai(trials), convention)
    known = ", ".join(get_args(Convention))
    raise ConfigError(f"there is no EER convention '{convention}'", fix=f"known: {known}")


def crossing(rates: Rates) -> tuple[float, float]:
    """(EER, threshold) where the polygon through the operating points meets miss = false accept."""
    gap = rates.miss - rates.false_accept  # ascending from -1 to 1
    after = int(np.searchsorted(gap, 0.0))
    before = after - 1
    if gap[after] == 0.0:
        return float(rates.miss[after]), _finite(rates, after)
    share = -gap[before] / (gap[after] - gap[before])
    step = rates.miss[after] - rates.miss[before]
    value = float(rates.miss[before] + share * step)
    closest = before if -gap[before] <= gap[after] else after
    return value, _finite(rates, closest)


def _finite(rates: Rates, point: int) -> float:
    """The threshold of a point; for "reject everything" a number just above the last score."""
    threshold = float(rates.thresholds[point])
    if np.isinf(threshold):
        return float(np.nextafter(rates.thresholds[point - 1], np.inf))
    return threshold


def _asvspoof(trials: Ladder) -> tuple[float, float]:
    target, nontarget = trials.scores
    scores = np.concatenate([target, nontarget])
    order = np.argsort(scores, kind="stable")  # among equal scores the targets stay first
    targets_rejected = np.cumsum(order < len(target))
    rejected = np.arange(1, len(scores) + 1)
    miss = np.append(0.0, targets_rejected / len(target))
    others_accepted = len(nontarget) - (rejected - targets_rejected)
    false_accept = np.append(1.0, others_accepted / len(nontarget))
    thresholds = np.append(scores[order[0]] - 0.001, scores[order])
    point = int(np.argmin(np.abs(miss - false_accept)))
    return float((miss[point] + false_accept[point]) / 2), float(thresholds[point])


def _clovaai(trials: Ladder) -> tuple[float, float]:
    thresholds = trials.thresholds[:-1][::-1]  # descending: from "reject most" to "accept all"
    accepted_targets = (trials.sizes[0] - trials.below[0][:-1])[::-1]
    accepted_others = (trials.sizes[1] - trials.below[1][:-1])[::-1]
    if len(thresholds) > 2:  # a point on the straight line between its neighbours is dropped
        bends = (np.diff(accepted_others, 2) != 0) | (np.diff(accepted_targets, 2) != 0)
        keep = np.concatenate([[True], bends, [True]])
        thresholds, accepted_targets = thresholds[keep], accepted_targets[keep]
        accepted_others = accepted_others[keep]
    miss = 1.0 - np.append(0, accepted_targets) / trials.sizes[0]
    false_accept = np.append(0, accepted_others) / trials.sizes[1]
    thresholds = np.append(np.inf, thresholds)
    point = int(np.argmin(np.abs(miss - false_accept)))
    return float(max(miss[point], false_accept[point])), float(thresholds[point])
