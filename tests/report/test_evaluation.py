"""An evaluation as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glottis.data import EvaluationTrials
from glottis.report import evaluation
from glottis.score.checkpoint import Evaluated
from glottis.score.evaluate import evaluate_speaker
from glottis.score.parts import Resampled
from helpers.speaker_trials import draw_trials


def evaluated(num_speakers: int) -> Evaluated:
    drawn = draw_trials(np.random.default_rng(0), num_speakers)
    trials = EvaluationTrials.from_pairs(
        [f"{s}-a" for s in drawn.enrol], [f"{s}-b" for s in drawn.test], drawn.is_target
    )
    speakers = [key.split("-")[0] for key in trials.keys]
    result = evaluate_speaker(drawn.scores, trials, speakers, how=Resampled(draws=30))
    return Evaluated(result, trials, drawn.scores, trials.target)


@pytest.mark.parametrize(("num_speakers", "shown"), [(12, True), (4, False)])
def test_the_figures_show_an_eer_with_its_interval_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_speakers: int, shown: bool
) -> None:
    said: dict[str, Any] = {}
    for name in ("det_curve", "score_histogram"):
        monkeypatch.setattr(evaluation, name, lambda *_, **named: said.update(named))
    done = evaluated(num_speakers)
    evaluation.write_report(tmp_path, done)
    [caption] = said["captions"].values()
    if shown:
        assert caption == f"EER {done.result.metrics['eer'].text(percent=True)}"
        assert "[" in caption
        assert said["threshold"] == done.result.thresholds["eer"]
    else:
        assert caption == "only n: 4 enrolment speakers, fewer than 5"
        assert said["threshold"] is None
