"""A calibrating phase: scale and offset in the card, likelihood ratios in the answers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glottis.data import DevelopmentProtocol, DevelopmentTrials
from glottis.errors import ConfigError, ResultError
from glottis.models import load_model, read_card
from glottis.rng import generator
from glottis.score import calibration_of, cllr, eer, fit_calibration
from glottis.train import train_recipe
from glottis.train.assemble import assemble
from glottis.train.ending import calibrate
from glottis.train.recipe import resolve_phases
from glottis.train.state import State
from helpers.cli import succeeds
from helpers.tones import recipe, speaker_tree, spoof_tree

CALIBRATE = {"name": "calibrate", "calibrate": True}


def test_a_calibration_finds_the_scale_and_offset_that_made_the_scores(tones: Path) -> None:
    """Ratios of two normal distributions, squeezed into scores; the order stays."""
    data = DevelopmentTrials.read(tones / "trials_dev.txt")
    draws = generator(3, "ratios").standard_normal(len(data))
    ratios = np.where(data.target, 2.0, -2.0) + 2.0 * draws  # of variance 4: calibrated
    scores = ((ratios - 1.0) / 8.0).astype(np.float32)
    found = fit_calibration(scores, data)
    assert found.scale == pytest.approx(8.0, rel=0.5)
    assert found.offset == pytest.approx(1.0, abs=1.0)
    after = found(scores)
    assert (np.argsort(after) == np.argsort(scores)).all()
    assert found.cllr_after == pytest.approx(cllr(after[data.target], after[~data.target]))
    assert found.cllr_after < found.cllr_before
    with pytest.raises(ResultError, match="do not tell the classes apart"):
        fit_calibration(-scores, data)


def test_a_calibrated_run_answers_with_likelihood_ratios(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"train__steps": 3, "evaluate__every_steps": 1, "batch__size": 4}
    average = {"kind": "last", "count": 2, "refresh_batches": 1}
    tree = speaker_tree(tones, **changes) | {"phases": [CALIBRATE], "average": average}
    run = tmp_path / "run"
    with caplog.at_level(logging.INFO, "glottis"):
        result = train_recipe(recipe(tree), run)
    assert result["steps"] == 3
    assert any(line.startswith("then 'calibrate'") for line in caplog.messages)
    cards = {name: read_card(run / "checkpoints" / name) for name in ("best", "average")}
    found = {name: calibration_of(card) for name, card in cards.items()}
    assert found["best"] != found["average"]  # each of its own scores
    best = found["best"]
    assert best is not None
    assert best.list_sha256 == DevelopmentTrials.read(tones / "trials_dev.txt").sha256
    assert result["calibration"] == cards[Path(result["checkpoint"]).name]["extra"]["calibration"]

    model, list_ = run / "checkpoints" / "best", tones / "trials_dev.txt"
    clips = [tones / f"s06_{n}_bonafide.wav" for n in (0, 1)]
    answer = succeeds("verify", model, *clips, "--json").json
    expected = best.scale * answer["score"] + best.offset
    assert answer["log_likelihood_ratio"] == pytest.approx(expected)
    shown = succeeds("verify", model, *clips).out
    assert f"log-likelihood ratio {expected:.2f} (same : different)" in shown

    words = ("evaluate", model, "--trials", list_, "--root", tones)
    measured = succeeds(*words, "--scores", tmp_path / "scores.txt", "--json").json
    lines = (tmp_path / "scores.txt").read_text().splitlines()
    ratios = np.array([float(line.split()[-1]) for line in lines])
    target = DevelopmentTrials.read(list_).target
    assert cllr(ratios[target], ratios[~target]) == pytest.approx(best.cllr_after, abs=1e-4)
    development = cards["best"]["extra"]["development"]
    assert eer(ratios[target], ratios[~target]).value == pytest.approx(development["eer"])
    assert measured["thresholds"]["eer"] == pytest.approx(
        best.scale * development["threshold"] + best.offset, rel=1e-3, abs=1e-3
    )
    assert any("calibrated on this very list" in note for note in measured["notes"])
    assert not any("not calibrated" in note for note in measured["notes"])


def test_a_calibrated_countermeasure_shows_a_column_and_a_backward_one_is_not_calibrated(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = spoof_tree(tones, train__steps=1, evaluate__every_steps=1)
    outcome = assemble(recipe(tree | {"phases": [CALIBRATE]}), tmp_path / "run")
    outcome.trainer.train(State())
    data = DevelopmentProtocol.read(tones / "cm.dev.txt")
    draws = generator(4, "scores").standard_normal(len(data))
    scores = np.where(data.bonafide, 1.0, -1.0) + draws
    assert calibrate(outcome.trainer, {"best": -scores, "average": None}) == {}
    assert "'best' is not calibrated: the scores" in caplog.text
    clip = tones / "s06_0_spoof.wav"
    assert "ratio" not in succeeds("detect", tmp_path / "run", clip).out
    calibrate(outcome.trainer, {"best": scores})
    found = calibration_of(read_card(tmp_path / "run" / "checkpoints" / "best"))
    assert found is not None
    (answer,) = succeeds("detect", tmp_path / "run", clip, "--json").json
    expected = found.scale * answer["score"] + found.offset
    assert answer["log_likelihood_ratio"] == pytest.approx(expected)
    assert "log-likelihood ratio" in succeeds("detect", tmp_path / "run", clip).out.splitlines()[0]


def test_one_file_is_heard_as_in_the_list(tones: Path, tmp_path: Path) -> None:
    """Threshold and calibration are of scores through the window of the recipe."""
    tree = spoof_tree(tones, train__steps=1, evaluate__every_steps=1)
    tree["evaluate"]["window"] = {"seconds": 0.3}
    train_recipe(recipe(tree), tmp_path / "run")
    clip, protocol, scores = tones / "s06_0_spoof.wav", tones / "cm.dev.txt", tmp_path / "scores"
    succeeds("evaluate", tmp_path / "run", "--protocol", protocol, "--scores", scores)
    (listed,) = (line for line in scores.read_text().splitlines() if "s06_0_spoof" in line)
    found = load_model(tmp_path / "run" / "checkpoints" / "best").detect(clip)
    assert found.segment_seconds == 0.3
    assert float(listed.split()[-1]) == pytest.approx(found.segment_scores[0], abs=1e-4)
    (answer,) = succeeds("detect", tmp_path / "run", clip, "--json").json
    assert answer["score"] == pytest.approx(found.score, abs=1e-6)


@pytest.mark.parametrize(
    ("phases", "evaluate", "says"),
    [
        ([CALIBRATE, {"name": "more"}], True, "other phases follow"),
        ([CALIBRATE | {"name": "a"}, CALIBRATE], True, "other phases follow"),
        ([CALIBRATE | {"train": {"steps": 3}}], True, "calibrates and has train"),
        ([{"name": "one"}, CALIBRATE], False, "nothing selects"),
        ([{"name": "calibrate"}, CALIBRATE], True, "two phases have one name"),
    ],
)
def test_a_calibration_in_the_wrong_place_is_refused(
    phases: list[dict[str, Any]], evaluate: bool, says: str, tones: Path
) -> None:
    tree = speaker_tree(tones, **({} if evaluate else {"evaluate": {}}))
    with pytest.raises(ConfigError, match=says):
        resolve_phases(recipe(tree | {"phases": phases}))
