from __future__ import annotations

import json

import numpy as np
import pytest

from glottis.data import DevelopmentTrials, EvaluationProtocol, EvaluationTrials
from glottis.errors import ResultError
from glottis.score.eer import eer
from glottis.score.evaluate import evaluate_sasv, evaluate_speaker, evaluate_spoof
from glottis.score.parts import Resampled
from glottis.score.tandem import AsvRates, min_tdcf
from helpers.speaker_trials import draw_trials

FAST = Resampled(draws=30)


def verification(
    num_speakers: int = 12, seed: int = 0
) -> tuple[np.ndarray, EvaluationTrials, np.ndarray]:
    """(scores, trials, speaker per key) over two utterances of each speaker."""
    drawn = draw_trials(np.random.default_rng(seed), num_speakers)
    trials = EvaluationTrials.from_pairs(
        [f"{s}-a" for s in drawn.enrol], [f"{s}-b" for s in drawn.test], drawn.is_target
    )
    speakers = np.array([key.split("-")[0] for key in trials.keys], dtype=object)
    return drawn.scores, trials, speakers


def spoofing(seed: int = 0) -> tuple[np.ndarray, EvaluationProtocol]:
    """300 bona fide of 15 voices; attack A1 of 12 voices, A2 of one, A3 with few clips."""
    rng = np.random.default_rng(seed)
    attack = np.array([""] * 300 + ["A1"] * 120 + ["A2"] * 80 + ["A3"] * 12, dtype=object)
    voice = [f"v{i % 15}" for i in range(300)] + [f"v{i % 12}" for i in range(120)]
    voice += ["tts"] * 80 + [f"v{i}" for i in range(12)]
    codec = np.array(["g722" if i % 3 else "" for i in range(512)], dtype=object)
    protocol = EvaluationProtocol(
        np.array([f"u{i}" for i in range(512)], dtype=object),
        np.array(voice, dtype=object),
        attack,
        attack == "",
        {"codec": codec},
        "made here",
        "0" * 64,
    )
    return rng.normal(0, 1, 512) + 2 * protocol.bonafide - (attack == "A1"), protocol


def test_pooled_numbers_are_those_of_the_metrics() -> None:
    scores, trials, speakers = verification()
    result = evaluate_speaker(scores, trials, speakers, how=FAST)
    expected = eer(scores[trials.target], scores[~trials.target])
    assert result.metrics["eer"].value == result.eer == expected.value
    assert result.thresholds["eer"] == expected.threshold
    assert set(result.metrics) == {
        *("eer", "min_dcf_0.01", "min_dcf_0.05", "act_dcf_0.01", "act_dcf_0.05"),
        *("cllr", "min_cllr"),
    }
    assert result.n["targets"] == 96
    assert result.n["enrolment speakers"] == 12
    assert result.metrics["eer"].method.startswith("speaker bootstrap over 12")


def test_a_source_needs_both_sides_and_mixed_pairs_have_their_own_row() -> None:
    scores, trials, speakers = verification(24)
    source = np.array(["north" if int(s[1:]) < 12 else "south" for s in speakers], dtype=object)
    result = evaluate_speaker(scores, trials, speakers, {"source": source}, how=FAST)
    cells = {cell.value: cell for cell in result.cells}
    assert list(cells) == ["north", "south", "mixed"]
    inside = (source[trials.enrol] == "north") & (source[trials.test] == "north")
    assert cells["north"].n["trials"] == inside.sum() == 96 + 12 * 11
    target, nontarget = scores[inside & trials.target], scores[inside & ~trials.target]
    assert cells["north"].metrics["eer"].value == eer(target, nontarget).value
    assert cells["mixed"].n["trials"] == 2 * 12 * 12
    assert cells["mixed"].note == "no targets"
    assert not cells["mixed"].metrics


def test_small_cells_show_only_their_counts() -> None:
    scores, trials, speakers = verification(24)
    number = np.array([int(s[1:]) for s in speakers])
    source = np.where(number < 3, "three", np.where(number < 7, "four", "rest")).astype(object)
    cells = {
        cell.value: cell
        for cell in evaluate_speaker(scores, trials, speakers, {"source": source}, how=FAST).cells
    }
    assert cells["three"].note == "fewer than 100 trials"
    assert cells["four"].note == "fewer than 100 trials"
    assert cells["rest"].metrics["eer"].value is not None
    source = np.where(number < 4, "four", "rest").astype(object)
    big = [np.repeat(x, 4) for x in (scores, trials.enrol, trials.test, trials.target)]
    repeated = EvaluationTrials.from_pairs(
        trials.keys[big[1]].tolist(), trials.keys[big[2]].tolist(), big[3]
    )
    order = [trials.keys.tolist().index(key) for key in repeated.keys]
    cells = {
        cell.value: cell
        for cell in evaluate_speaker(
            big[0], repeated, speakers[order], {"source": source[order]}, how=FAST
        ).cells
    }
    assert cells["four"].n["trials"] == 4 * (32 + 12)
    assert cells["four"].note == "only 4 enrolment speakers"
    assert not cells["four"].metrics


def test_fewer_than_five_speakers_show_no_number_but_can_still_be_compared() -> None:
    scores, trials, speakers = verification(4)
    result = evaluate_speaker(scores, trials, speakers, how=FAST)
    assert result.metrics["eer"].value is None
    assert result.eer == eer(scores[trials.target], scores[~trials.target]).value
    assert "-" in dict(result.rows())["EER"]


def test_unknown_speakers_give_a_labelled_trial_bootstrap() -> None:
    scores, trials, _ = verification()
    result = evaluate_speaker(scores, trials, None, how=FAST)
    assert result.metrics["eer"].method.startswith("trial bootstrap (speakers unknown")


def test_counts_must_match_and_scores_must_differ() -> None:
    scores, trials, speakers = verification()
    with pytest.raises(ResultError, match=r"\[E1\] 227 scores for 228 trials"):
        evaluate_speaker(scores[:-1], trials, speakers)
    with pytest.raises(ResultError, match=r"\[E1\] all 228 scores are 1"):
        evaluate_speaker(np.ones(len(trials)), trials, speakers)
    with pytest.raises(ResultError, match=r"\[E1\] 1 of 228 trial scores are not finite"):
        evaluate_speaker(np.where(np.arange(228) == 7, np.nan, scores), trials, speakers)
    with pytest.raises(ResultError, match="24 utterances have no speaker"):
        evaluate_speaker(scores, trials, [""] * 24)
    with pytest.raises(ResultError, match="3 values of 'source'"):
        evaluate_speaker(scores, trials, speakers, {"source": ["a", "b", "c"]})


@pytest.mark.parametrize(
    ("change", "text"),
    [(-1.0, "labels or the sign of the scores flipped"), (0.0, "no better than chance")],
)
def test_suspicious_error_rates_are_pointed_out(change: float, text: str) -> None:
    scores, trials, speakers = verification()
    noise = np.random.default_rng(1).normal(0, 1, len(scores))
    result = evaluate_speaker(change * scores + (change == 0) * noise, trials, speakers, how=FAST)
    assert any("[E2]" in note and text in note for note in result.notes)


def test_no_error_on_many_targets_asks_for_leakage() -> None:
    scores, trials, speakers = verification(70)
    result = evaluate_speaker(
        np.where(trials.target, 50.0, -50.0) + scores, trials, speakers, how=FAST
    )
    assert any("leakage" in note for note in result.notes)
    assert result.metrics["eer"].high == pytest.approx(1 - 0.025 ** (1 / 70))


def test_uncalibrated_scores_are_said_to_be_so() -> None:
    scores, trials, speakers = verification()
    assert any(
        "calibrated" in note for note in evaluate_speaker(scores, trials, speakers, how=FAST).notes
    )
    calibrated = evaluate_speaker(scores, trials, speakers, calibrated=True, how=FAST)
    assert not any("calibrated" in note for note in calibrated.notes)


def test_attacks_share_the_bona_fide_trials() -> None:
    scores, protocol = spoofing()
    result = evaluate_spoof(scores, protocol, how=FAST)
    cells = {cell.value: cell for cell in result.cells if cell.condition == "attack"}
    for attack, count in (("A1", 120), ("A2", 80), ("A3", 12)):
        assert (cells[attack].n["bona fide"], cells[attack].n["spoof"]) == (300, count)
    spoof = scores[protocol.attack == "A1"]
    assert cells["A1"].metrics["eer"].value == eer(scores[:300], spoof).value
    assert cells["A1"].metrics["eer"].method.startswith("speaker bootstrap over 15 bona fide")
    assert cells["A2"].note == "only 1 spoof voices"


def test_conditions_of_a_protocol_get_a_table_with_both_classes_inside() -> None:
    scores, protocol = spoofing()
    cells = {
        cell.value: cell
        for cell in evaluate_spoof(scores, protocol, how=FAST).cells
        if cell.condition == "codec"
    }
    assert set(cells) == {"(none)", "g722"}
    inside = protocol.conditions["codec"] == "g722"
    assert cells["g722"].n["bona fide"] == int((inside & protocol.bonafide).sum())
    extra = np.where(np.arange(512) < 256, "early", "late").astype(object)
    more = evaluate_spoof(scores, protocol, {"half": extra}, how=FAST)
    assert more.conditions() == ["attack", "codec", "half"]


def test_tdcf_appears_with_a_verification_system_only() -> None:
    scores, protocol = spoofing()
    asv = AsvRates(0.0, 0.02, 0.02, 0.5)
    result = evaluate_spoof(scores, protocol, asv=asv, how=FAST)
    expected = min_tdcf(scores[protocol.bonafide], scores[~protocol.bonafide], asv, "2021").value
    assert result.metrics["min_tdcf_2021"].value == pytest.approx(expected)
    assert "min_tdcf_2019" in result.metrics
    assert "min_tdcf_2021" not in evaluate_spoof(scores, protocol, how=FAST).metrics


def test_unknown_voices_of_a_protocol_are_not_guessed() -> None:
    scores, protocol = spoofing()
    protocol.speaker[3] = ""
    result = evaluate_spoof(scores, protocol, how=FAST)
    assert result.metrics["eer"].method.startswith("trial bootstrap (speakers unknown")


def test_sasv_trials_have_three_classes() -> None:
    scores, trials, speakers = verification(14)
    kinds = np.where(trials.target, 1, np.where(np.arange(len(trials)) % 2, 2, 0))
    mixed = EvaluationTrials.from_pairs(
        trials.enrol_keys.tolist(), trials.test_keys.tolist(), kinds
    )
    result = evaluate_sasv(scores, mixed, speakers, how=FAST)
    groups = [scores[kinds == kind] for kind in (1, 0, 2)]
    assert result.metrics["sv_eer"].value == eer(groups[0], groups[1]).value
    assert result.metrics["spf_eer"].value == eer(groups[0], groups[2]).value
    others = np.concatenate(groups[1:])
    assert result.metrics["sasv_eer"].value == pytest.approx(eer(groups[0], others).value)
    assert result.metrics["min_a_dcf"].low is not None
    with pytest.raises(ResultError, match="spoof trials"):
        evaluate_speaker(scores, mixed, speakers)


def test_a_result_is_plain_json_and_a_table() -> None:
    scores, trials, speakers = verification(24)
    development = DevelopmentTrials.from_pairs(
        trials.enrol_keys.tolist(), trials.test_keys.tolist(), trials.target
    )
    source = np.array(["x" if int(s[1:]) < 12 else "" for s in speakers], dtype=object)
    how = Resampled(draws=30, run_id="run-7")
    result = evaluate_speaker(scores, development, speakers, {"source": source}, how=how)
    tree = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert tree["run_id"] == tree["metrics"]["eer"]["run_id"] == "run-7"
    assert tree["data"]["role"] == "development"
    assert tree["data"]["sha256"] == development.sha256
    assert [cell["value"] for cell in tree["cells"]] == ["(none)", "x", "mixed"]
    text = result.to_markdown()
    assert "| EER | " in text
    assert "speaker bootstrap over 24 enrolment speakers" in text
    assert "| mixed | 288 |" in text
    assert result.flat("dev/")["dev/eer"] == result.eer


def test_reject_everything_is_written_as_text() -> None:
    scores, trials, speakers = verification()
    result = evaluate_speaker(-scores, trials, speakers, how=FAST)
    assert result.to_dict()["thresholds"]["min_dcf_0.01"] == "inf"
    json.dumps(result.to_dict(), allow_nan=False)
