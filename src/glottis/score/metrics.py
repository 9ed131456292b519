"""The named metrics of the two tasks, as functions of a (weighted) sample."""

from __future__ import annotations

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
from glottis.score.rates import Sample
from glottis.score.tandem import (
    CHALLENGE,
    LIBRARY_DEFAULT,
    AdcfCosts,
    AsvRates,
    Form,
    sample_a_dcf,
    tandem_weights,
)


def eer_metric(sample: Sample) -> float:
    """Equal error rate, polygon crossing."""
    return crossing(sample.rates)[0]


def min_dcf_metric(model: CostModel) -> Metric:
    """Minimum normalised detection cost."""
    return lambda sample: min_cost(sample, *model.weights).value


def act_dcf_metric(model: CostModel) -> Metric:
    """Actual normalised detection cost."""
    return lambda sample: actual_cost(sample, model).value


def min_tdcf_metric(asv: AsvRates, form: Form) -> Metric:
    """Minimum tandem cost for fixed verification rates."""
    weights = tandem_weights(asv, form)
    return lambda sample: weights.minimum(sample).value


def a_dcf_metric(costs: AdcfCosts) -> Metric:
    """Minimum a-DCF of a sample with three classes."""
    return lambda sample: sample_a_dcf(sample, costs).value


def speaker_metrics() -> dict[str, Metric]:
    """EER, minDCF and actDCF at priors 0.01 and 0.05, Cllr and its minimum."""
    rare, common = CostModel(0.01), CostModel(0.05)
    return {
        "eer": eer_metric,
        "min_dcf_0.01": min_dcf_metric(rare),
        "min_dcf_0.05": min_dcf_metric(common),
        "act_dcf_0.01": act_dcf_metric(rare),
        "act_dcf_0.05": act_dcf_metric(common),
        "cllr": sample_cllr,
        "min_cllr": sample_min_cllr,
    }


def spoof_metrics(asv: AsvRates | None = None) -> dict[str, Metric]:
    """EER, the ASVspoof 5 costs, Cllr; both t-DCF forms where there is a verification system."""
    metrics: dict[str, Metric] = {
        "eer": eer_metric,
        "min_dcf": min_dcf_metric(ASVSPOOF5),
        "act_dcf": act_dcf_metric(ASVSPOOF5),
        "cllr": sample_cllr,
        "min_cllr": sample_min_cllr,
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
        "sasv_eer": lambda sample: crossing(sample.pooled(1, 2))[0],
        "sv_eer": lambda sample: crossing(sample.pooled(1))[0],
        "spf_eer": lambda sample: crossing(sample.pooled(2))[0],
    }
