"""Costs of a countermeasure in front of, or fused with, a speaker verification system.

- ``min_tdcf``: tandem detection cost of a cascade.  Form "2019" is the legacy one of ASVspoof 2019,
  C1 P_miss + C2 P_fa over min(C1, C2); form "2021" is the ASV-constrained one,
  C0 + C1 P_miss + C2 P_fa over C0 + min(C1, C2), whose floor for a perfect countermeasure is the
  cost of the ASV system itself.
- ``a_dcf``: architecture-agnostic cost of one score for {target, non-target, spoof}.

Sources: T. Kinnunen et al., "Tandem assessment of spoofing countermeasures and automatic speaker
verification: fundamentals", IEEE/ACM TASLP 28 (2020), eq. 10-13; H. Shim et al., "a-DCF: an
architecture agnostic metric", Odyssey 2024, eq. 5-7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from glottis.errors import ConfigError, ResultError
from glottis.score._checks import ArrayLike, checked_scores
from glottis.score.detection_cost import Cost, min_cost
from glottis.score.eer import Convention, eer
from glottis.score.rates import Sample, ladder

Form = Literal["2019", "2021"]


@dataclass(frozen=True)
class AsvRates:
    """Error rates of a fixed speaker verification system at one threshold (accept when >=)."""

    threshold: float
    miss: float
    false_accept: float
    spoof_false_accept: float


ASVSPOOF5_ASV = AsvRates(
    threshold=float("nan"),
    miss=0.01880141010575793,
    false_accept=0.01881016557566423,
    spoof_false_accept=0.4607082907604729,
)
"""The rates that the ASVspoof 5 organisers publish for their own system."""


@dataclass(frozen=True)
class TandemCosts:
    """Priors and costs of the tandem; the values are those of ASVspoof 2019 and 2021.

    p_spoof: prior of an attack; the rest is split into targets and ``share_nontarget`` zero-effort
    impostors.
    """

    p_spoof: float = 0.05
    share_nontarget: float = 0.01
    cost_miss: float = 1.0
    cost_false_accept: float = 10.0
    cost_spoof_accept: float = 10.0

    @property
    def p_target(self) -> float:
        return (1 - self.p_spoof) * (1 - self.share_nontarget)

    @property
    def p_nontarget(self) -> float:
        return (1 - self.p_spoof) * self.share_nontarget


def asv_rates(
    target: ArrayLike | None,
    nontarget: ArrayLike | None,
    spoof: ArrayLike | None,
    threshold: float | None = None,
) -> AsvRates:
    """Rates of a speaker verification system from its own scores.

    threshold: None = the EER threshold of target against non-target in the ``asvspoof`` convention,
    which is part of the definition of the published t-DCF.
    """
    if target is None or nontarget is None or spoof is None:
        raise ResultError(
            "there are no speaker verification scores for this list",
            why="the tandem cost measures a countermeasure together with one verification system",
            fix="give the ASV score file of the same corpus, or report EER and minDCF",
        )
    groups = [
        checked_scores(group, f"ASV {name}")
        for group, name in ((target, "target"), (nontarget, "non-target"), (spoof, "spoof"))
    ]
    if threshold is None:
        threshold = eer(groups[0], groups[1], "asvspoof").threshold
    return AsvRates(
        threshold,
        miss=float((groups[0] < threshold).mean()),
        false_accept=float((groups[1] >= threshold).mean()),
        spoof_false_accept=float((groups[2] >= threshold).mean()),
    )


@dataclass(frozen=True)
class TandemWeights:
    """The normalised cost is ``constant + miss * P_miss + false_accept * P_fa`` of the
    countermeasure."""

    constant: float
    miss: float
    false_accept: float

    def minimum(self, sample: Sample) -> Cost:
        """The least cost over all thresholds of the countermeasure."""
        return min_cost(sample, self.miss, self.false_accept, self.constant)


def tandem_weights(asv: AsvRates, form: Form, costs: TandemCosts | None = None) -> TandemWeights:
    """The coefficients C0, C1, C2 over the normaliser of the form (C0 = 0 in the legacy form)."""
    given = costs or TandemCosts()
    spoof_cost = given.p_spoof * given.cost_spoof_accept * asv.spoof_false_accept
    asv_miss = given.p_target * given.cost_miss * asv.miss
    asv_false_accept = given.p_nontarget * given.cost_false_accept * asv.false_accept
    miss_cost = given.p_target * given.cost_miss - asv_miss - asv_false_accept
    if form not in get_args(Form):
        raise ConfigError(f"there is no t-DCF form '{form}'", fix="known: 2019, 2021")
    constant = 0.0 if form == "2019" else asv_miss + asv_false_accept
    if miss_cost <= 0 or spoof_cost <= 0:
        raise ResultError(
            f"the t-DCF weights are C1 = {miss_cost:.4g} and C2 = {spoof_cost:.4g}",
            why="with an ASV system this bad (or one that accepts no spoof) the cost is undefined",
            fix="check the ASV scores: higher must mean target; is it the right corpus?",
        )
    scale = constant + min(miss_cost, spoof_cost)
    return TandemWeights(constant / scale, miss_cost / scale, spoof_cost / scale)


def min_tdcf(
    bonafide: ArrayLike,
    spoof: ArrayLike,
    asv: AsvRates | None,
    form: Form = "2021",
    costs: TandemCosts | None = None,
) -> Cost:
    """Minimum normalised tandem cost of countermeasure scores (higher = bona fide)."""
    if asv is None:
        asv = asv_rates(None, None, None)  # raises: says what is missing
    trials = ladder(bonafide, spoof, names=("bona fide", "spoof"))
    return tandem_weights(asv, form, costs).minimum(Sample(trials))


@dataclass(frozen=True)
class AdcfCosts:
    """Priors and costs of the three classes."""

    p_target: float
    p_nontarget: float
    p_spoof: float
    cost_miss: float = 1.0
    cost_nontarget: float = 10.0
    cost_spoof: float = 10.0

    def __post_init__(self) -> None:
        total = self.p_target + self.p_nontarget + self.p_spoof
        if min(self.p_target, self.p_nontarget, self.p_spoof) < 0 or abs(total - 1) > 1e-9:
            raise ConfigError(f"the a-DCF priors sum to {total}", fix="they must sum to 1")

    @property
    def weights(self) -> tuple[float, float, float]:
        """Factors of the miss rate and of the two false-accept rates in the normalised cost."""
        miss = self.cost_miss * self.p_target
        nontarget, spoof = self.cost_nontarget * self.p_nontarget, self.cost_spoof * self.p_spoof
        scale = min(miss, nontarget + spoof)
        return miss / scale, nontarget / scale, spoof / scale


CHALLENGE = AdcfCosts(0.9405, 0.0095, 0.05, 1.0, 10.0, 10.0)
"""The parameters of the ASVspoof 5 challenge."""
LIBRARY_DEFAULT = AdcfCosts(0.9, 0.05, 0.05, 1.0, 10.0, 20.0)
"""What the public a-DCF package uses when no parameters are given: another metric."""


def a_dcf(
    target: ArrayLike, nontarget: ArrayLike, spoof: ArrayLike, costs: AdcfCosts = CHALLENGE
) -> Cost:
    """Minimum normalised a-DCF of one score per trial; say which parameters when you report it."""
    return sample_a_dcf(Sample(ladder(target, nontarget, spoof)), costs)


def sample_a_dcf(sample: Sample, costs: AdcfCosts) -> Cost:
    """`a_dcf` of a weighted sample with the classes target, non-target, spoof."""
    miss, nontarget, spoof = costs.weights
    total = miss * sample.rates.miss + nontarget * sample.rates.false_accept
    total += spoof * sample.accepted(2)
    point = int(np.argmin(total))
    return Cost(float(total[point]), float(sample.rates.thresholds[point]))


@dataclass(frozen=True)
class SasvEer:
    """Equal error rates of targets against all others, non-targets and spoofs (fractions)."""

    sasv: float
    speaker: float
    spoof: float


def sasv_eer(
    target: ArrayLike,
    nontarget: ArrayLike,
    spoof: ArrayLike,
    convention: Convention = "crossing",
) -> SasvEer:
    """SASV-EER, SV-EER and SPF-EER of one score per trial (SASV challenge 2022)."""
    others = np.concatenate(
        [checked_scores(nontarget, "nontarget"), checked_scores(spoof, "spoof")]
    )
    return SasvEer(
        eer(target, others, convention).value,
        eer(target, nontarget, convention).value,
        eer(target, spoof, convention).value,
    )


def eer_per_attack(
    bonafide: ArrayLike,
    spoof: ArrayLike,
    attacks: np.ndarray,
    convention: Convention = "crossing",
) -> dict[str, float]:
    """EER of all bona fide trials against each attack alone; attacks: (N,) names of the spoofs."""
    scores = checked_scores(spoof, "spoof")
    names = np.asarray(attacks)
    if names.shape != scores.shape:
        raise ResultError(f"{names.size} attack names for {scores.size} spoof scores", rule="E1")
    return {
        str(name): eer(bonafide, scores[names == name], convention).value
        for name in np.unique(names)
    }
