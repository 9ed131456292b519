from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glottis.errors import ResultError
from glottis.score._checks import refuse_constant, split_by_class
from glottis.score.detection_cost import min_cost, sample_cllr, sample_min_cllr
from glottis.score.eer import crossing
from glottis.score.rates import Sample, ladder, rates

SCORES = st.lists(st.integers(-6, 6), min_size=1, max_size=25)


def test_rates_count_ties_together_and_end_with_reject_everything() -> None:
    points = rates([1.0, 2.0, 2.0, 3.0], [0.0, 2.0])
    assert points.thresholds.tolist() == [0.0, 1.0, 2.0, 3.0, np.inf]
    assert points.miss.tolist() == [0.0, 0.0, 0.25, 0.75, 1.0]
    assert points.false_accept.tolist() == [1.0, 0.5, 0.5, 0.0, 0.0]


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES, st.integers(0, 2**31))
def test_a_weighted_sample_equals_repeating_the_trials(
    target: list[int], nontarget: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 3, len(target)), rng.integers(0, 3, len(nontarget))
    weights[0][0] = weights[1][0] = 1
    sample = Sample(ladder(target, nontarget).corners(), weights)
    repeated = Sample(ladder(np.repeat(target, weights[0]), np.repeat(nontarget, weights[1])))
    assert crossing(sample.rates)[0] == pytest.approx(crossing(repeated.rates)[0], abs=1e-12)
    for miss, accept in ((1.0, 1.0), (1.0, 19.0), (1.9, 1.0)):
        ours = min_cost(sample, miss, accept).value
        assert ours == pytest.approx(min_cost(repeated, miss, accept).value, abs=1e-12)
    assert sample.share_below(0, 1.0) == pytest.approx(repeated.share_below(0, 1.0), abs=1e-12)
    assert sample_cllr(sample) == pytest.approx(sample_cllr(repeated), abs=1e-12)
    assert sample_min_cllr(sample) == pytest.approx(sample_min_cllr(repeated), abs=1e-9)


def test_corners_are_fewer_than_thresholds() -> None:
    trials = ladder(np.arange(50.0) + 25, np.arange(50.0))
    assert len(trials.corners().thresholds) < len(trials.thresholds) - 40


def test_a_class_may_have_a_third_partner() -> None:
    sample = Sample(ladder([2.0], [1.0], [0.0, 3.0]))
    assert sample.accepted(2).tolist() == [1.0, 0.5, 0.5, 0.5, 0.0]


def test_score_count_must_equal_trial_count() -> None:
    with pytest.raises(ResultError, match=r"\[E1\] 2 scores for 3 trials"):
        split_by_class(np.zeros(2), np.array([True, False, True]))


def test_integer_labels_are_refused() -> None:
    with pytest.raises(ResultError, match="not booleans"):
        split_by_class(np.zeros(2), np.array([1, 0]))


def test_two_dimensional_scores_are_refused() -> None:
    with pytest.raises(ResultError, match=r"shape \(2, 1\)"):
        rates(np.zeros((2, 1)), np.zeros(2))


def test_constant_scores_are_refused_on_request() -> None:
    with pytest.raises(ResultError, match="all 4 scores are"):
        refuse_constant(np.full(4, 0.5))
    refuse_constant(np.array([0.5, 0.6]))
