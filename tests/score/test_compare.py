from __future__ import annotations

import numpy as np
import pytest

from glottis.errors import ResultError
from glottis.score.compare import compare
from glottis.score.intervals import measure
from glottis.score.metrics import EER_METRIC
from glottis.score.rates import ladder
from glottis.score.voices import trial_voices
from helpers.speaker_trials import draw_trials

EER_ONLY = {"eer": EER_METRIC}


def test_one_trial_of_difference_is_not_better() -> None:
    rng = np.random.default_rng(0)
    trials = draw_trials(rng, 20)
    voices = trial_voices(trials.is_target, trials.enrol, trials.test)
    other = trials.scores + rng.normal(0, 0.05, len(trials.scores))
    result = compare(trials.scores, other, trials.is_target, voices, EER_ONLY, draws=200)["eer"]
    assert not result.distinguishable
    assert "better" not in result.verdict()
    assert "do not tell A and B apart" in result.verdict()


def test_a_clear_difference_is_found_though_the_single_intervals_overlap() -> None:
    trials = draw_trials(np.random.default_rng(1), 20)
    voices = trial_voices(trials.is_target, trials.enrol, trials.test)
    worse = trials.scores - 0.5 * trials.is_target
    result = compare(trials.scores, worse, trials.is_target, voices, EER_ONLY, draws=200)["eer"]
    assert result.distinguishable
    assert result.difference == pytest.approx(result.b - result.a)
    assert result.verdict("old", "new").startswith("eer: old is better")
    single = [
        measure(
            EER_ONLY, ladder(s[trials.is_target], s[~trials.is_target]), voices, n={}, draws=200
        )["eer"]
        for s in (trials.scores, worse)
    ]
    assert single[0].high is not None
    assert single[1].low is not None
    assert single[0].high > single[1].low


def test_a_system_equals_itself() -> None:
    trials = draw_trials(np.random.default_rng(2), 12)
    result = compare(trials.scores, trials.scores, trials.is_target, None, EER_ONLY, draws=20)[
        "eer"
    ]
    assert (result.difference, result.low, result.high) == (0.0, 0.0, 0.0)
    assert not result.distinguishable


def test_few_voices_give_no_interval() -> None:
    trials = draw_trials(np.random.default_rng(2), 4)
    voices = trial_voices(trials.is_target, trials.enrol, trials.test)
    result = compare(trials.scores, -trials.scores, trials.is_target, voices, EER_ONLY)["eer"]
    assert result.low is None
    assert "no interval" in result.verdict()
    assert result.to_dict()["distinguishable"] is False


def test_systems_must_have_scored_the_same_trials() -> None:
    with pytest.raises(ResultError, match="3 scores against 2"):
        compare([1.0, 2.0, 3.0], [1.0, 2.0], np.array([True, False, False]), None, EER_ONLY)
