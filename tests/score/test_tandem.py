from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glottis.errors import ConfigError, ResultError
from glottis.score.tandem import (
    ASVSPOOF5_ASV,
    CHALLENGE,
    LIBRARY_DEFAULT,
    AdcfCosts,
    AsvRates,
    TandemCosts,
    a_dcf,
    asv_rates,
    eer_per_attack,
    min_tdcf,
    sasv_eer,
    tandem_weights,
)
from helpers.golden_scores import CM_SETS, SASV_SETS, asv, read_json, sasv, split

ALTERNATIVE = AdcfCosts(0.89, 0.01, 0.1, 1.0, 10.0, 10.0)
SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=12)


@pytest.mark.parametrize("name", ["asv_a", "asv_b"])
def test_asv_rates_equal_golden(shared: Path, name: str) -> None:
    golden = read_json(shared, "tdcf/golden.json")[name]
    ours = asv_rates(*asv(shared, name))
    assert ours.threshold == golden["threshold"]
    assert ours.miss == pytest.approx(golden["Pmiss_asv"], abs=1e-15)
    assert ours.false_accept == pytest.approx(golden["Pfa_asv"], abs=1e-15)
    assert 1 - ours.spoof_false_accept == pytest.approx(golden["Pmiss_spoof_asv"], abs=1e-15)


@pytest.mark.parametrize("system", ["asv_a", "asv_b"])
@pytest.mark.parametrize("name", CM_SETS)
def test_legacy_tdcf_equals_golden(shared: Path, system: str, name: str) -> None:
    golden = read_json(shared, "tdcf/golden.json")[f"{system}|{name}"]
    ours = min_tdcf(*split(shared, name), asv_rates(*asv(shared, system)), "2019")
    assert ours.value == pytest.approx(golden["min_tdcf"], abs=1e-12)


@pytest.mark.parametrize("system", ["asv_a", "asv_b"])
@pytest.mark.parametrize("name", CM_SETS)
def test_asv_constrained_tdcf_equals_textbook(shared: Path, system: str, name: str) -> None:
    golden = read_json(shared, "metrics_textbook.json")["tdcf2021"][f"{system}|{name}"]
    ours = min_tdcf(*split(shared, name), asv_rates(*asv(shared, system)), "2021")
    assert ours.value == pytest.approx(golden["min_tdcf"], abs=1e-12)
    assert ours.threshold == golden["min_threshold"]
    package = golden["asvspoof2021_package"]["min_tdcf"]
    assert ours.value == pytest.approx(package, abs=1e-12)


@pytest.mark.parametrize("system", ["asv_a", "asv_b"])
def test_floor_of_the_constrained_form_is_the_asv_cost(shared: Path, system: str) -> None:
    golden = read_json(shared, "metrics_textbook.json")["tdcf2021"][system]
    weights = tandem_weights(asv_rates(*asv(shared, system)), "2021")
    assert weights.constant == pytest.approx(golden["floor_perfect_cm"], abs=1e-12)
    perfect = min_tdcf([1.0, 2.0], [-1.0, -2.0], asv_rates(*asv(shared, system)), "2021")
    assert perfect.value == pytest.approx(weights.constant, abs=1e-15)


@pytest.mark.parametrize("name", SASV_SETS)
@pytest.mark.parametrize(("key", "costs"), [("default", LIBRARY_DEFAULT), ("alt", ALTERNATIVE)])
def test_a_dcf_equals_golden(shared: Path, name: str, key: str, costs: AdcfCosts) -> None:
    golden = read_json(shared, "tdcf/golden.json")[f"adcf|{name}|{key}"]
    assert a_dcf(*sasv(shared, name), costs).value == pytest.approx(golden["min_a_dcf"], abs=1e-12)


@pytest.mark.parametrize("name", SASV_SETS)
def test_sasv_eers_equal_golden_in_their_convention(shared: Path, name: str) -> None:
    golden = read_json(shared, "tdcf/golden.json")[f"adcf|{name}|default"]
    ours = sasv_eer(*sasv(shared, name), "asvspoof")
    assert ours.sasv == pytest.approx(golden["sasv_eer"], abs=1e-12)
    assert ours.speaker == pytest.approx(golden["sv_eer"], abs=1e-12)
    assert ours.spoof == pytest.approx(golden["spf_eer"], abs=1e-12)


def test_challenge_and_library_parameters_are_two_different_metrics() -> None:
    """One of two targets missed, or the non-target accepted: the two sets of costs disagree."""
    scores = [0.0, 2.0], [1.0], [-1.0]
    assert a_dcf(*scores, CHALLENGE).value == pytest.approx(0.095 / 0.595)
    assert a_dcf(*scores, LIBRARY_DEFAULT).value == pytest.approx(0.45 / 0.9)


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES, SCORES)
def test_a_dcf_equals_counting_by_hand(
    target: list[int], nontarget: list[int], spoof: list[int]
) -> None:
    def at(threshold: float) -> float:
        miss = np.mean(np.array(target) < threshold)
        accepted = np.mean(np.array(nontarget) >= threshold)
        fooled = np.mean(np.array(spoof) >= threshold)
        cost = 0.9405 * miss + 0.095 * accepted + 0.5 * fooled
        return float(cost / min(0.9405, 0.095 + 0.5))

    slow = min(at(threshold) for threshold in [*target, *nontarget, *spoof, np.inf])
    ours = a_dcf(target, nontarget, spoof)
    assert ours.value == pytest.approx(slow, abs=1e-12)
    assert at(ours.threshold) == pytest.approx(ours.value, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES, st.sampled_from(["2019", "2021"]))
def test_tdcf_equals_counting_by_hand(bonafide: list[int], spoof: list[int], form: str) -> None:
    asv_point = AsvRates(0.0, 0.05, 0.03, 0.6)
    c0 = 0.9405 * 0.05 + 0.0095 * 10 * 0.03 if form == "2021" else 0.0
    c1 = 0.9405 - 0.9405 * 0.05 - 0.0095 * 10 * 0.03
    c2 = 0.05 * 10 * 0.6

    def at(threshold: float) -> float:
        miss = np.mean(np.array(bonafide) < threshold)
        fooled = np.mean(np.array(spoof) >= threshold)
        return float((c0 + c1 * miss + c2 * fooled) / (c0 + min(c1, c2)))

    slow = min(at(threshold) for threshold in [*bonafide, *spoof, np.inf])
    assert min_tdcf(bonafide, spoof, asv_point, form).value == pytest.approx(slow, abs=1e-12)  # type: ignore[arg-type]


def test_perfect_verification_and_countermeasure_cost_nothing() -> None:
    assert min_tdcf([1.0], [0.0], AsvRates(0.0, 0.0, 0.0, 1.0), "2019").value == 0.0
    assert a_dcf([1.0], [0.0], [-1.0]).value == 0.0


def test_tandem_costs_split_the_priors() -> None:
    costs = TandemCosts()
    assert costs.p_target == pytest.approx(0.9405)
    assert costs.p_nontarget == pytest.approx(0.0095)


def test_published_asvspoof5_rates_give_a_finite_weight() -> None:
    weights = tandem_weights(ASVSPOOF5_ASV, "2021")
    assert 0 < weights.constant < 1
    assert min(weights.miss, weights.false_accept) + weights.constant == pytest.approx(1.0)


def test_tdcf_without_asv_scores_is_refused() -> None:
    with pytest.raises(ResultError, match="no speaker verification scores"):
        min_tdcf([1.0], [0.0], None)


def test_tdcf_with_an_inverted_asv_is_refused() -> None:
    with pytest.raises(ResultError, match="higher must mean target"):
        min_tdcf([1.0], [0.0], AsvRates(0.0, 1.0, 1.0, 0.5), "2019")


def test_unknown_form_and_bad_priors_are_refused() -> None:
    with pytest.raises(ConfigError, match="t-DCF form '2020'"):
        min_tdcf([1.0], [0.0], AsvRates(0.0, 0.1, 0.1, 0.5), "2020")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="sum to"):
        AdcfCosts(0.9, 0.2, 0.1)


def test_attack_names_must_match_the_scores() -> None:
    with pytest.raises(ResultError, match="1 attack names for 2"):
        eer_per_attack([1.0], [0.0, 0.1], np.array(["A01"]))
