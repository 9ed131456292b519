from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glottis.errors import ConfigError, ResultError
from glottis.score.eer import eer
from glottis.score.rates import rates
from glottis.score.tandem import eer_per_attack
from helpers.golden_scores import CM_SETS, EER_SETS, cm_attacks, read_json, split

SCORES = st.lists(st.integers(-6, 6), min_size=1, max_size=25)


def slow_crossing(target: np.ndarray, nontarget: np.ndarray) -> float:
    """Every achievable point by counting, then the crossing of the polygon by hand."""
    points = [
        (np.mean(target < threshold), np.mean(nontarget >= threshold))
        for threshold in [*sorted(set(target) | set(nontarget)), np.inf]
    ]
    for (miss_a, accept_a), (miss_b, accept_b) in itertools.pairwise(points):
        if miss_a <= accept_a and miss_b >= accept_b:
            fall, rise = accept_a - accept_b, miss_b - miss_a
            return float(miss_a + rise * (accept_a - miss_a) / (fall + rise))
    raise AssertionError("the polygon always crosses")


@pytest.mark.parametrize("name", EER_SETS + CM_SETS)
def test_crossing_equals_the_textbook_number(shared: Path, name: str) -> None:
    stored = read_json(shared, "metrics_textbook.json")
    golden = (stored["cm_files"] | stored["sets"])[name]["eer_crossing"]
    assert eer(*split(shared, name)).value == pytest.approx(golden, abs=1e-12)


@pytest.mark.parametrize("name", EER_SETS)
def test_clovaai_convention_equals_its_golden_number(shared: Path, name: str) -> None:
    golden = read_json(shared, "eer_mindcf_golden.json")[name]["eer"]
    assert 100 * eer(*split(shared, name), "clovaai").value == pytest.approx(golden, abs=1e-12)


@pytest.mark.parametrize("name", EER_SETS + CM_SETS)
def test_asvspoof_convention_equals_the_official_package(shared: Path, name: str) -> None:
    stored = read_json(shared, "metrics_textbook.json")
    golden = (stored["cm_files"] | stored["sets"])[name]["asvspoof5_package"]["eer"]
    assert eer(*split(shared, name), "asvspoof").value == pytest.approx(golden, abs=1e-12)


@pytest.mark.parametrize("name", CM_SETS)
def test_asvspoof_convention_equals_the_aasist_evaluation(shared: Path, name: str) -> None:
    golden = read_json(shared, "tdcf/golden.json")[f"asv_a|{name}"]
    ours = eer(*split(shared, name), "asvspoof")
    assert 100 * ours.value == pytest.approx(golden["eer_percent"], abs=1e-11)
    assert ours.threshold == pytest.approx(golden["eer_threshold"], abs=1e-15)


@pytest.mark.parametrize("name", CM_SETS)
def test_eer_per_attack_equals_golden(shared: Path, name: str) -> None:
    golden = read_json(shared, "tdcf/golden.json")[f"asv_a|{name}"]["per_attack_eer_percent"]
    ours = eer_per_attack(*split(shared, name), cm_attacks(shared, name), "asvspoof")
    assert {key: 100 * value for key, value in ours.items()} == pytest.approx(golden, abs=1e-10)


@pytest.mark.parametrize("name", EER_SETS + CM_SETS)
def test_threshold_reproduces_the_eer(shared: Path, name: str) -> None:
    """At the threshold both rates are as close to the EER as this list allows."""
    target, nontarget = split(shared, name)
    result = eer(target, nontarget)
    miss = np.mean(target < result.threshold)
    false_accept = np.mean(nontarget >= result.threshold)
    points = rates(target, nontarget)
    closest = np.min(np.abs(points.miss - points.false_accept))
    assert abs(miss - false_accept) == pytest.approx(closest, abs=1e-15)
    low, high = sorted((miss, false_accept))
    assert low - 1e-12 <= result.value <= high + 1e-12


def test_asvspoof_threshold_reproduces_its_eer_without_ties() -> None:
    rng = np.random.default_rng(3)
    target, nontarget = rng.normal(1, 1, 311), rng.normal(-1, 1, 503)
    result = eer(target, nontarget, "asvspoof")
    miss = np.mean(target <= result.threshold)
    false_accept = np.mean(nontarget > result.threshold)
    assert (miss + false_accept) / 2 == pytest.approx(result.value, abs=1e-15)


def test_clovaai_threshold_reproduces_its_eer() -> None:
    rng = np.random.default_rng(4)
    target, nontarget = rng.normal(1, 1, 311), rng.normal(-1, 1, 503)
    result = eer(target, nontarget, "clovaai")
    both = np.mean(target < result.threshold), np.mean(nontarget >= result.threshold)
    assert max(both) == pytest.approx(result.value, abs=1e-12)


def test_equal_scores_give_one_half_and_not_a_hundred_percent() -> None:
    same = np.full(20, 0.3)
    assert eer(same, same).value == 0.5
    assert eer(same, same, "asvspoof").value == 1.0  # the trap of that convention


def test_separated_scores_give_zero_and_swapped_ones_one() -> None:
    assert eer([2.0, 3.0], [0.0, 1.0]).value == 0.0
    assert eer([0.0, 1.0], [2.0, 3.0]).value == 1.0


def test_two_gaussians_approach_the_closed_form() -> None:
    """Equal-variance Gaussians d apart: EER = Phi(-d / 2); here d = 2 -> 15.866 %."""
    quantiles = (np.arange(20000) + 0.5) / 20000
    from scipy.special import ndtri

    normal = ndtri(quantiles)
    assert eer(normal + 2.0, normal).value == pytest.approx(0.158655, abs=1e-4)


@settings(max_examples=200, deadline=None)
@given(SCORES, SCORES)
def test_crossing_equals_counting_by_hand(target: list[int], nontarget: list[int]) -> None:
    ours = eer(target, nontarget)
    assert ours.value == pytest.approx(
        slow_crossing(np.array(target), np.array(nontarget)), abs=1e-12
    )
    assert 0.0 <= ours.value <= 1.0
    assert np.isfinite(ours.threshold)


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES)
def test_eer_ignores_the_order_of_trials_and_monotone_maps(
    target: list[int], nontarget: list[int]
) -> None:
    moved = eer(np.array(target[::-1]) * 3.0 + 1.0, np.array(nontarget[::-1]) * 3.0 + 1.0)
    assert moved.value == eer(target, nontarget).value


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES)
def test_negated_swapped_scores_give_the_same_eer(target: list[int], nontarget: list[int]) -> None:
    mirrored = eer(-np.array(nontarget), -np.array(target))
    assert mirrored.value == pytest.approx(eer(target, nontarget).value, abs=1e-12)


def test_nan_scores_are_refused_with_their_position() -> None:
    with pytest.raises(ResultError, match=r"\[E1\] 1 of 3 nontarget scores .* position 1") as error:
        eer([1.0], [0.0, np.nan, 0.0])
    assert error.value.exit_code == 1


@pytest.mark.parametrize(("target", "nontarget"), [([], [1.0]), ([1.0], [])])
def test_one_class_only_is_refused(target: list[float], nontarget: list[float]) -> None:
    with pytest.raises(ResultError, match="there are no"):
        eer(target, nontarget)


def test_unknown_convention_is_refused() -> None:
    with pytest.raises(ConfigError, match="no EER convention 'best'"):
        eer([1.0], [0.0], "best")  # type: ignore[arg-type]
