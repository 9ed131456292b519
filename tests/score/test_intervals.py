from __future__ import annotations

import numpy as np
import pytest

from glottis.rng import generator
from glottis.score.intervals import (
    Measured,
    SpeakerBootstrap,
    TrialBootstrap,
    draws_for,
    half_width,
    interval_ends,
    measure,
    resampling_for,
)
from glottis.score.metrics import EER_METRIC, speaker_metrics
from glottis.score.rates import ladder
from glottis.score.voices import clip_voices, sasv_voices, trial_voices
from helpers.speaker_trials import TRUE_EER, SpeakerTrials, draw_trials

EER_ONLY = {"eer": EER_METRIC}


def eer_interval(trials: SpeakerTrials, known: bool, draws: int = 200) -> Measured:
    voices = trial_voices(trials.is_target, trials.enrol, trials.test) if known else None
    scores = ladder(trials.scores[trials.is_target], trials.scores[~trials.is_target])
    return measure(EER_ONLY, scores, voices, n={}, draws=draws)["eer"]


def holds(measured: Measured, truth: float) -> bool:
    assert measured.low is not None
    assert measured.high is not None
    return measured.low <= truth <= measured.high


def width(measured: Measured) -> float:
    assert measured.low is not None
    assert measured.high is not None
    return measured.high - measured.low


def test_speaker_bootstrap_covers_the_truth_and_the_trial_bootstrap_does_not() -> None:
    """80 data sets of 16 speakers: about 95 % of the intervals hold the true EER."""
    rng = np.random.default_rng(11)
    sets = [draw_trials(rng, 16) for _ in range(80)]
    speaker = [holds(eer_interval(trials, known=True), TRUE_EER) for trials in sets]
    naive = [holds(eer_interval(trials, known=False), TRUE_EER) for trials in sets]
    assert 0.88 <= np.mean(speaker) <= 0.995
    assert np.mean(naive) <= 0.80


@pytest.mark.slow
@pytest.mark.parametrize("num_speakers", [10, 20, 40])
def test_coverage_is_near_the_nominal_level(num_speakers: int) -> None:
    rng = np.random.default_rng(num_speakers)
    held = [
        holds(eer_interval(draw_trials(rng, num_speakers), known=True, draws=600), TRUE_EER)
        for _ in range(300)
    ]
    assert 0.91 <= np.mean(held) <= 0.985


def test_clustered_trials_give_a_wider_interval_than_the_trial_bootstrap() -> None:
    rng = np.random.default_rng(5)
    sets = [draw_trials(rng, 20) for _ in range(6)]
    speaker = np.mean([width(eer_interval(trials, known=True)) for trials in sets])
    naive = np.mean([width(eer_interval(trials, known=False)) for trials in sets])
    assert speaker > 1.4 * naive


def test_trials_without_speaker_effects_give_similar_intervals() -> None:
    """Where speakers do not matter, resampling them costs little."""
    rng = np.random.default_rng(6)
    trials = draw_trials(rng, 40)
    trials.scores = rng.normal(0, 1, len(trials.scores)) + 2 * trials.is_target
    ratio = width(eer_interval(trials, known=True)) / width(eer_interval(trials, known=False))
    assert 0.7 < ratio < 1.4


def test_the_weight_of_a_trial_is_the_product_of_its_voices_counts() -> None:
    is_target = np.array([True, True, False, False])
    voices = trial_voices(is_target, ["a", "b", "a", "b"], ["a", "b", "b", "c"])
    rng = generator(1)
    times = np.bincount(rng.integers(0, 3, 3), minlength=3)
    target, nontarget = SpeakerBootstrap(voices).draw(generator(1))
    assert target.tolist() == [times[0], times[1]]  # once per voice, not squared
    assert nontarget.tolist() == [times[0] * times[1], times[1] * times[2]]


def test_a_nontarget_within_one_voice_counts_that_voice_once() -> None:
    voices = trial_voices(np.array([True, False, False]), ["a", "a", "a"], ["a", "a", "b"])
    times = np.bincount(generator(4).integers(0, 2, 2), minlength=2)
    _, nontarget = SpeakerBootstrap(voices).draw(generator(4))
    assert nontarget.tolist() == [times[0], times[0] * times[1]]


def test_draws_are_unbiased_in_the_mean() -> None:
    """Each trial counts once on average (up to the 1 - 1/n of two different voices)."""
    trials = draw_trials(np.random.default_rng(0), 30, per_speaker=2)
    resampling = SpeakerBootstrap(trial_voices(trials.is_target, trials.enrol, trials.test))
    rng = generator(0)
    sums = [[group.mean() for group in resampling.draw(rng)] for _ in range(2000)]
    assert np.mean(sums, axis=0) == pytest.approx([1.0, 1 - 1 / 30], abs=0.03)


def test_same_seed_same_interval_and_another_seed_another() -> None:
    trials = draw_trials(np.random.default_rng(1), 12)
    voices = trial_voices(trials.is_target, trials.enrol, trials.test)
    scores = ladder(trials.scores[trials.is_target], trials.scores[~trials.is_target])
    one, two = (measure(EER_ONLY, scores, voices, n={}, seed=3, draws=50)["eer"] for _ in "ab")
    other = measure(EER_ONLY, scores, voices, n={}, seed=4, draws=50)["eer"]
    assert one == two
    assert (one.low, one.high) != (other.low, other.high)


@pytest.mark.parametrize(
    ("num_speakers", "method"),
    [
        (12, "speaker bootstrap over 12 enrolment"),
        (7, "trial bootstrap (only 7 "),
        (4, "only n: 4"),
    ],
)
def test_few_voices_change_the_method_and_its_name(num_speakers: int, method: str) -> None:
    trials = draw_trials(np.random.default_rng(2), num_speakers)
    result = eer_interval(trials, known=True, draws=20)
    assert result.method.startswith(method)
    assert (result.value is None) == (num_speakers < 5)


def test_unknown_speakers_are_said_to_be_unknown() -> None:
    result = eer_interval(draw_trials(np.random.default_rng(2), 30), known=False, draws=20)
    assert result.method.startswith("trial bootstrap (speakers unknown; too narrow")


def test_few_voices_with_targets_count_as_few() -> None:
    """30 speakers but targets of 4 of them only: the miss rate rests on 4 voices."""
    trials = draw_trials(np.random.default_rng(3), 30)
    keep = ~trials.is_target | np.isin(trials.enrol, ["s0", "s1", "s2", "s3"])
    voices = trial_voices(
        trials.is_target[keep],
        list(np.array(trials.enrol)[keep]),
        list(np.array(trials.test)[keep]),
    )
    assert voices.sides["target speakers"] == 4
    scores = ladder(trials.scores[keep & trials.is_target], trials.scores[~trials.is_target])
    assert resampling_for(scores, voices) is None


def test_no_error_seen_gives_the_exact_binomial_bound() -> None:
    trials = draw_trials(np.random.default_rng(2), 12)
    trials.scores = np.where(trials.is_target, 10.0, -10.0) + 0.1 * trials.scores
    result = eer_interval(trials, known=True, draws=20)
    assert result.value == 0.0
    assert result.low == 0.0
    assert result.high == pytest.approx(1 - 0.025 ** (1 / 12))


def test_a_metric_that_never_varies_has_no_interval() -> None:
    trials = draw_trials(np.random.default_rng(2), 12)
    scores = ladder(trials.scores[trials.is_target] - 50, trials.scores[~trials.is_target] - 50)
    voices = trial_voices(trials.is_target, trials.enrol, trials.test)
    result = measure(speaker_metrics(), scores, voices, n={}, draws=30)["act_dcf_0.01"]
    assert (result.value, result.low, result.high) == (1.0, None, None)
    assert "every draw gives the same value" in result.method


def test_a_minimum_that_hangs_on_single_trials_has_no_interval() -> None:
    """With 1,560 non-targets one false accept is 99 / 1560 = 0.063 of minDCF(0.01)."""
    trials = draw_trials(np.random.default_rng(2), 40)
    scores = ladder(trials.scores[trials.is_target], trials.scores[~trials.is_target])
    voices = trial_voices(trials.is_target, trials.enrol, trials.test)
    results = measure(speaker_metrics(), scores, voices, n={}, draws=30)
    assert results["min_dcf_0.01"].value is not None
    assert results["min_dcf_0.01"].low is None
    assert "one error weighs 0.063" in results["min_dcf_0.01"].method
    assert results["min_dcf_0.05"].low is not None
    assert results["min_cllr"].low is None


def test_the_interval_holds_the_measured_value() -> None:
    rng = np.random.default_rng(9)
    for _ in range(5):
        trials = draw_trials(rng, 10, per_speaker=1)
        voices = trial_voices(trials.is_target, trials.enrol, trials.test)
        scores = ladder(trials.scores[trials.is_target], trials.scores[~trials.is_target])
        for result in measure(speaker_metrics(), scores, voices, n={}, draws=40).values():
            if result.low is not None:
                assert result.value is not None
                assert holds(result, result.value)


def test_spoof_voices_on_both_sides_move_together() -> None:
    is_bonafide = np.array([True, True, False, False])
    voices = clip_voices(is_bonafide, ["a", "b", "a", "tts"])
    assert voices.sides == {"bona fide voices": 2, "spoof voices": 2}
    bonafide, spoof = SpeakerBootstrap(voices).draw(generator(7))
    assert bonafide[0] == spoof[0]


def test_three_classes_can_be_resampled() -> None:
    voices = sasv_voices(np.array([0, 1, 2, 2]), ["a", "b", "a", "c"])
    assert [len(group) for group in SpeakerBootstrap(voices).draw(generator(0))] == [1, 1, 2]


def test_trial_bootstrap_keeps_the_number_of_trials() -> None:
    weights = TrialBootstrap((5, 9), "test").draw(generator(0))
    assert [int(weight.sum()) for weight in weights] == [5, 9]


def test_half_width_is_that_of_student_and_falls_to_the_normal_one() -> None:
    assert half_width(10) == pytest.approx(np.sqrt(10 / 9) * 2.262157, abs=1e-5)
    assert half_width(100000) == pytest.approx(1.96, abs=1e-3)
    assert half_width(1) == np.inf


def test_ends_of_unbiased_draws_are_their_quantiles() -> None:
    """Draws symmetric about the value: no bias to correct."""
    draws = np.linspace(-1, 1, 2001)
    low, high = interval_ends(0.0, draws, 10**6)
    assert (low, high) == (pytest.approx(-0.95, abs=1e-3), pytest.approx(0.95, abs=1e-3))


def test_optimistic_draws_move_the_interval_up() -> None:
    """If 90 % of the draws lie below the value, the truth lies above more often than below."""
    draws = np.linspace(-1, 1, 2001)
    low, high = interval_ends(0.8, draws, 10**6)
    assert low > interval_ends(0.0, draws, 10**6)[0]
    assert high == pytest.approx(1.0, abs=1e-3)


def test_number_of_draws_falls_with_the_number_of_trials() -> None:
    assert [draws_for(n) for n in (10, 5000, 100_000, 250_000, 580_000)] == [
        1000,
        1000,
        1000,
        400,
        200,
    ]


def test_measured_prints_percent_or_says_nothing() -> None:
    assert Measured(0.1234, 0.1, 0.15).text(percent=True) == "12.34 % [10.00, 15.00]"
    assert Measured(0.5, None, None).text() == "0.5000"
    assert Measured(None).text() == "-"
    assert Measured(0.1, n={"trials": 3}).to_dict()["n"] == {"trials": 3}
