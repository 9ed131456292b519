"""The named metrics of the tasks, as functions of a (weighted) sample."""

from __future__ import annotations

from collections.abc import Callable

from glottis.score.detection_cost import (
    ASVSPOOF5,
    CostModel,
    actual_cost,
    min_cost,
    sample_cllr,
    sample_min_cllr,
)
from glottis.score.eer import crossing
from glottis.score.intervals import Metric
from glottis.score.rates import Ladder
from glottis.score.tandem import (
    CHALLENGE,
    LIBRARY_DEFAULT,
    AdcfCosts,
    AsvRates,
    Form,
    sample_a_dcf,
    tandem_weights,
)

MAX_STEP = 0.02
"""Weight of one trial in a minimum over thresholds above which its interval cannot be trusted."""

EER_METRIC = Metric(lambda sample: crossing(sample.rates)[0])
"""Equal error rate, polygon crossing."""
CLLR_METRIC = Metric(sample_cllr)
"""Cost of the log-likelihood ratios."""
MIN_CLLR_METRIC = Metric(
    sample_min_cllr, lambda trials: "its calibration is fitted to the list it is measured on"
)
"""Cllr after the best monotone map."""


def min_dcf_metric(model: CostModel) -> Metric:
    """Minimum normalised detection cost."""
    weights = model.weights
    return Metric(lambda sample: min_cost(sample, *weights).value, _steps(*weights))


def act_dcf_metric(model: CostModel) -> Metric:
    """Actual normalised detection cost."""
    return Metric(lambda sample: actual_cost(sample, model).value)


def min_tdcf_metric(asv: AsvRates, form: Form) -> Metric:
    """Minimum tandem cost for fixed verification rates."""
    weights = tandem_weights(asv, form)
    return Metric(
        lambda sample: weights.minimum(sample).value, _steps(weights.miss, weights.false_accept)
    )


def a_dcf_metric(costs: AdcfCosts) -> Metric:
    """Minimum a-DCF of a sample with three classes."""
    return Metric(lambda sample: sample_a_dcf(sample, costs).value, _steps(*costs.weights))


def speaker_metrics() -> dict[str, Metric]:
    """EER, minDCF and actDCF at priors 0.01 and 0.05, Cllr and its minimum."""
    rare, common = CostModel(0.01), CostModel(0.05)
    return {
        "eer": EER_METRIC,
        "min_dcf_0.01": min_dcf_metric(rare),
        "min_dcf_0.05": min_dcf_metric(common),
        "act_dcf_0.01": act_dcf_metric(rare),
        "act_dcf_0.05": act_dcf_metric(common),
        "cllr": CLLR_METRIC,
        "min_cllr": MIN_CLLR_METRIC,
    }


def spoof_metrics(asv: AsvRates | None = None) -> dict[str, Metric]:
    """EER, the ASVspoof 5 costs, Cllr; both t-DCF forms where there is a verification system."""
    metrics = {
        "eer": EER_METRIC,
        "min_dcf": min_dcf_metric(ASVSPOOF5),
        "act_dcf": act_dcf_metric(ASVSPOOF5),
        "cllr": CLLR_METRIC,
        "min_cllr": MIN_CLLR_METRIC,
    }
    if asv is not None:
        metrics["min_tdcf_2019"] = min_tdcf_metric(asv, "2019")
        metrics["min_tdcf_2021"] = min_tdcf_metric(asv, "2021")
    return metrics


def sasv_metrics() -> dict[str, Metric]:
    """a-DCF with the challenge's and the library's parameters; three equal error rates."""
    return {
        "min_a_dcf": a_dcf_metric(CHALLENGE),
        "min_a_dcf_library": a_dcf_metric(LIBRARY_DEFAULT),
        "sasv_eer": Metric(lambda sample: crossing(sample.pooled(1, 2))[0]),
        "sv_eer": Metric(lambda sample: crossing(sample.pooled(1))[0]),
        "spf_eer": Metric(lambda sample: crossing(sample.pooled(2))[0]),
    }


def _steps(*weights: float) -> Callable[[Ladder], str]:
    """A doubt if one trial of a class weighs more than `MAX_STEP` in the normalised cost."""

    def doubt(trials: Ladder) -> str:
        largest = max(weight / size for weight, size in zip(weights, trials.sizes, strict=True))
        if largest <= MAX_STEP:
            return ""
        return f"one error weighs {largest:.3f} (at most {MAX_STEP}); more trials are needed"

    return doubt
