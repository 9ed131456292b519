from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glottis.errors import ConfigError, ResultError
from glottis.score.detection_cost import (
    ASVSPOOF5,
    CostModel,
    act_dcf,
    cllr,
    min_cllr,
    min_dcf,
)
from helpers.golden_scores import CM_SETS, EER_SETS, eer_set, read_json, split

SCORES = st.lists(st.integers(-6, 6), min_size=1, max_size=20)
FIVE = (ASVSPOOF5.p_target, ASVSPOOF5.cost_miss, ASVSPOOF5.cost_false_accept)


def textbook(shared: Path, name: str) -> dict[str, float]:
    stored = read_json(shared, "metrics_textbook.json")
    block = (stored["sets"] | stored["cm_files"])[name]
    return {key: float(value) for key, value in block.items() if not isinstance(value, dict)}


@pytest.mark.parametrize("name", EER_SETS + CM_SETS)
@pytest.mark.parametrize("p_target", [0.01, 0.05])
def test_costs_equal_the_textbook(shared: Path, name: str, p_target: float) -> None:
    golden, scores = textbook(shared, name), split(shared, name)
    least, actual = min_dcf(*scores, p_target), act_dcf(*scores, p_target)
    assert least.value == pytest.approx(golden[f"mindcf_p{p_target}"], abs=1e-12)
    assert least.threshold == golden[f"mindcf_thr_p{p_target}"]
    assert actual.value == pytest.approx(golden[f"actdcf_p{p_target}"], abs=1e-12)
    assert actual.threshold == pytest.approx(golden[f"actdcf_thr_p{p_target}"], abs=1e-12)


@pytest.mark.parametrize("name", EER_SETS + CM_SETS)
def test_asvspoof5_costs_equal_the_textbook(shared: Path, name: str) -> None:
    golden, scores = textbook(shared, name), split(shared, name)
    least, actual = min_dcf(*scores, *FIVE), act_dcf(*scores, *FIVE)
    assert least.value == pytest.approx(golden["asvspoof5_mindcf"], abs=1e-12)
    assert least.threshold == golden["asvspoof5_mindcf_thr"]
    assert actual.value == pytest.approx(golden["asvspoof5_actdcf"], abs=1e-12)
    assert actual.threshold == pytest.approx(-math.log(1.9), abs=1e-12)


@pytest.mark.parametrize("name", EER_SETS + CM_SETS)
def test_cllr_equals_the_textbook(shared: Path, name: str) -> None:
    golden = textbook(shared, name)["cllr_bits"]
    assert cllr(*split(shared, name)) == pytest.approx(golden, abs=1e-12)


@pytest.mark.parametrize("name", EER_SETS)
def test_min_dcf_of_the_trainer_is_ours_up_to_its_ungrouped_ties(shared: Path, name: str) -> None:
    """That code sweeps single sorted scores: with ties its points are not achievable."""
    golden = read_json(shared, "eer_mindcf_golden.json")[name]
    scores, labels = eer_set(shared, name)
    ordered = labels[np.argsort(scores, kind="stable")]
    miss = np.cumsum(ordered) / ordered.sum()
    accept = 1 - np.cumsum(1 - ordered) / (1 - ordered).sum()
    tied = len(np.unique(scores)) < len(scores)
    for key, model in {
        "p0.05": CostModel(0.05),
        "p0.01": CostModel(0.01),
        "p0.5": CostModel(0.5),
        "p0.01_cmiss10": CostModel(0.01, 10.0),
    }.items():
        weight_miss, weight_accept = model.weights
        theirs = golden[f"mindcf_{key}"]
        assert np.min(weight_miss * miss + weight_accept * accept) == pytest.approx(theirs)
        ours = min_dcf(*split(shared, name), model.p_target, model.cost_miss)
        assert ours.value == pytest.approx(theirs, abs=1e-12) or (tied and ours.value >= theirs)


@settings(max_examples=150, deadline=None)
@given(SCORES, SCORES, st.sampled_from([0.01, 0.5, 0.95]), st.sampled_from([1.0, 10.0]))
def test_min_dcf_equals_counting_by_hand(
    target: list[int], nontarget: list[int], p_target: float, cost: float
) -> None:
    def at(threshold: float) -> float:
        miss = np.mean(np.array(target) < threshold) * p_target
        accept = np.mean(np.array(nontarget) >= threshold) * cost * (1 - p_target)
        return float((miss + accept) / min(p_target, cost * (1 - p_target)))

    slow = min(at(threshold) for threshold in [*target, *nontarget, np.inf])
    ours = min_dcf(target, nontarget, p_target, 1.0, cost)
    assert ours.value == pytest.approx(slow, abs=1e-12)
    assert at(ours.threshold) == pytest.approx(ours.value, abs=1e-12)
    assert ours.value <= min(1.0, act_dcf(target, nontarget, p_target, 1.0, cost).value) + 1e-12


def test_useless_scores_cost_exactly_one() -> None:
    assert min_dcf([0.0, 0.0], [0.0, 0.0], 0.01).value == 1.0
    assert cllr([0.0], [0.0]) == 1.0
    assert min_cllr([0.0, 1.0], [0.0, 1.0]) == pytest.approx(1.0)


def test_calibrated_gaussian_scores_cost_what_theory_says() -> None:
    """For d' = 2, scores x d' - d'^2/2 are LLRs: actual and minimum cost agree."""
    from scipy.special import ndtri

    normal = ndtri((np.arange(200000) + 0.5) / 200000)
    target, nontarget = 2 * (normal + 2) - 2, 2 * normal - 2
    least, actual = min_dcf(target, nontarget, 0.05), act_dcf(target, nontarget, 0.05)
    assert actual.value == pytest.approx(least.value, abs=1e-4)
    assert min_cllr(target, nontarget) == pytest.approx(cllr(target, nontarget), abs=1e-3)


def test_cllr_of_huge_scores_is_finite_and_exact() -> None:
    assert cllr([1e6], [-1e6]) == 0.0
    assert cllr([-1000.0], [1000.0]) == pytest.approx(1000.0 / math.log(2))


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES)
def test_min_cllr_is_the_least_over_monotone_maps(target: list[int], nontarget: list[int]) -> None:
    best = min_cllr(target, nontarget)
    assert -1e-12 <= best <= 1.0 + 1e-9
    for scale, shift in ((0.3, 0.0), (1.0, 1.0), (2.0, -1.0)):
        mapped = cllr(scale * np.array(target) + shift, scale * np.array(nontarget) + shift)
        assert best <= mapped + 1e-9


def test_min_cllr_of_separated_scores_is_zero() -> None:
    assert min_cllr([3.0, 4.0], [1.0, 2.0]) == 0.0


def test_min_cllr_of_pooled_blocks_equals_the_entropy_by_hand() -> None:
    """Block {0}: 1 target of 3; block {1}: 2 targets of 3; classes are balanced."""

    def bits(posterior: float) -> float:
        return -math.log2(posterior)

    by_hand = (bits(1 / 3) + 2 * bits(2 / 3)) / 3
    assert min_cllr([0, 1, 1], [0, 0, 1]) == pytest.approx(by_hand, abs=1e-12)


def test_a_cost_model_must_make_sense() -> None:
    with pytest.raises(ConfigError, match=r"p_target 1\.5"):
        CostModel(1.5)


def test_infinite_scores_are_refused() -> None:
    with pytest.raises(ResultError, match="not finite"):
        cllr([np.inf], [0.0])
