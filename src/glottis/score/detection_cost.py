"""Detection costs and log-likelihood-ratio costs.

With prior p of a target, C_miss and C_fa the normalised detection cost of a threshold is

    (C_miss p P_miss + C_fa (1 - p) P_fa) / min(C_miss p, C_fa (1 - p))

so that the better of "accept everything" and "reject everything" costs 1.  ``min_dcf`` sweeps the
achievable thresholds; ``act_dcf`` uses the one that theory gives for log-likelihood ratios,
ln(C_fa (1 - p) / (C_miss p)), and is large for scores that are not calibrated.

Sources: NIST SRE evaluation plans; N. Bruemmer and J. du Preez, "Application-independent evaluation
of speaker detection", Computer Speech and Language 20 (2006); ASVspoof 5 evaluation plan (2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from glottis.errors import ConfigError
from glottis.score._checks import ArrayLike
from glottis.score.rates import Sample, ladder


@dataclass(frozen=True)
class CostModel:
    """Prior of a target (bona fide) trial and the costs of the two errors."""

    p_target: float
    cost_miss: float = 1.0
    cost_false_accept: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.p_target < 1 and self.cost_miss > 0 and self.cost_false_accept > 0):
            raise ConfigError(
                f"a cost model with p_target {self.p_target}, costs {self.cost_miss} and "
                f"{self.cost_false_accept}",
                fix="the prior lies between 0 and 1, costs are positive",
            )

    @property
    def weights(self) -> tuple[float, float]:
        """Factors of the miss rate and of the false-accept rate in the normalised cost."""
        miss = self.cost_miss * self.p_target
        false_accept = self.cost_false_accept * (1 - self.p_target)
        return miss / min(miss, false_accept), false_accept / min(miss, false_accept)

    @property
    def threshold(self) -> float:
        """The threshold for natural-log likelihood ratios."""
        odds = self.cost_false_accept * (1 - self.p_target) / (self.cost_miss * self.p_target)
        return math.log(odds)


ASVSPOOF5 = CostModel(p_target=0.95, cost_miss=1.0, cost_false_accept=10.0)
"""Track 1 of ASVspoof 5: spoof prior 0.05, a missed bona fide costs 1, an accepted spoof 10."""


@dataclass(frozen=True)
class Cost:
    """value: normalised cost; threshold: accept when ``score >= threshold`` (+inf: nothing)."""

    value: float
    threshold: float


def min_cost(
    sample: Sample, weight_miss: float, weight_false_accept: float, constant: float = 0.0
) -> Cost:
    """The least ``constant + weight_miss P_miss + weight_false_accept P_fa`` on the ladder."""
    costs = weight_miss * sample.rates.miss + weight_false_accept * sample.rates.false_accept
    costs += constant
    point = int(np.argmin(costs))
    return Cost(float(costs[point]), float(sample.rates.thresholds[point]))


def min_dcf(
    target: ArrayLike,
    nontarget: ArrayLike,
    p_target: float = 0.05,
    cost_miss: float = 1.0,
    cost_false_accept: float = 1.0,
) -> Cost:
    """Minimum normalised detection cost; "reject everything" is one of the thresholds."""
    model = CostModel(p_target, cost_miss, cost_false_accept)
    return min_cost(Sample(ladder(target, nontarget)), *model.weights)


def act_dcf(
    target: ArrayLike,
    nontarget: ArrayLike,
    p_target: float = 0.05,
    cost_miss: float = 1.0,
    cost_false_accept: float = 1.0,
) -> Cost:
    """Normalised detection cost at the threshold for natural-log likelihood ratios."""
    model = CostModel(p_target, cost_miss, cost_false_accept)
    return actual_cost(Sample(ladder(target, nontarget)), model)


def actual_cost(sample: Sample, model: CostModel) -> Cost:
    """`act_dcf` of a weighted sample."""
    weight_miss, weight_false_accept = model.weights
    miss = sample.share_below(0, model.threshold)
    false_accept = 1.0 - sample.share_below(1, model.threshold)
    return Cost(weight_miss * miss + weight_false_accept * false_accept, model.threshold)


def cllr(target: ArrayLike, nontarget: ArrayLike) -> float:
    """Cost of the log-likelihood ratios in bits: 0 perfect, 1 = no information, more = misleading.

    Softplus form: finite for any finite score.
    """
    return sample_cllr(Sample(ladder(target, nontarget)))


def sample_cllr(sample: Sample) -> float:
    """`cllr` of a weighted sample."""
    target_cost, nontarget_cost = sample.ladder.surprise
    return _bits(sample.mean(0, target_cost), sample.mean(1, nontarget_cost))


def min_cllr(target: ArrayLike, nontarget: ArrayLike) -> float:
    """Cllr after the best monotone recalibration on the list itself (pool adjacent violators)."""
    return sample_min_cllr(Sample(ladder(target, nontarget)))


def sample_min_cllr(sample: Sample) -> float:
    """`min_cllr` of a weighted sample."""
    targets, nontargets = np.diff(sample.below(0)), np.diff(sample.below(1))
    present = targets + nontargets > 0
    targets, nontargets = targets[present], nontargets[present]
    total = (targets + nontargets).astype(np.float64)
    share = isotonic_regression(targets / total, weights=total).x
    prior_log_odds = math.log(targets.sum() / nontargets.sum())
    # a block without one class has an infinite ratio: it costs the class it holds nothing
    mixed = (share > 0) & (share < 1)
    ratio = np.log(share[mixed] / (1 - share[mixed])) - prior_log_odds
    target_cost = np.logaddexp(0.0, -ratio) @ targets[mixed] / targets.sum()
    nontarget_cost = np.logaddexp(0.0, ratio) @ nontargets[mixed] / nontargets.sum()
    return _bits(float(target_cost), float(nontarget_cost))


def _bits(target_cost: float, nontarget_cost: float) -> float:
    return (target_cost + nontarget_cost) / (2 * math.log(2))
