"""What chooses the best checkpoint: the EER, or a cost of speaker verification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glottis.cli.train import _number
from glottis.data import DevelopmentTrials
from glottis.errors import ConfigError
from glottis.models import read_card
from glottis.report.history import read_metrics
from glottis.rng import generator
from glottis.score import evaluate_speaker
from glottis.train import train_recipe
from glottis.train.evaluation import _evaluation
from glottis.train.recipe import resolve_phases
from glottis.train.state import State
from helpers.tones import recipe, speaker_tree, spoof_tree


def test_another_number_may_choose_another_checkpoint(tones: Path) -> None:
    """One system has a few strong impostors, the other many weak ones."""
    trials = DevelopmentTrials.read(tones / "trials_dev.txt")
    rng = generator(2, "scores")
    target = trials.target
    strong = np.where(target, 1.0, 0.0) + 0.01 * rng.standard_normal(len(trials))
    strong[np.flatnonzero(~target)[:3]] = 2.0
    weak = np.where(target, 1.0, 0.0) + 0.01 * rng.standard_normal(len(trials))
    weak[np.flatnonzero(target)[:8]] = -1.0
    chosen = {}
    for select in ("eer", "min_dcf_0.01"):
        state = State()
        for step, scores in enumerate((strong, weak), start=1):
            state.step = step
            result = evaluate_speaker(scores.astype(np.float32), trials, None)
            state.update_best(_evaluation(result, trials.source, scores, select))
        chosen[select] = state.best_step
    assert chosen == {"eer": 1, "min_dcf_0.01": 2}


def test_a_run_selects_by_what_the_recipe_says(tones: Path, tmp_path: Path) -> None:
    changes = {"evaluate__every_steps": 1, "evaluate__select": "min_dcf_0.05", "train__steps": 2}
    result = train_recipe(recipe(speaker_tree(tones, **changes)), tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    costs = [line["dev/min_dcf_0.05"] for line in lines if "dev/min_dcf_0.05" in line]
    assert (result["select"], result["best_development"]) == ("min_dcf_0.05", min(costs))
    assert result["best_step"] == 1 + costs.index(min(costs))
    development = read_card(tmp_path / "run" / "checkpoints" / "best")["extra"]["development"]
    assert (development["select"], development["min_dcf_0.05"]) == ("min_dcf_0.05", min(costs))
    assert _number(result["select"], 0.25) == "minDCF(0.05) 0.2500"
    assert _number("eer", 0.25) == "EER 25.00 %"


@pytest.mark.parametrize(
    ("make", "changes", "says"),
    [
        (spoof_tree, {}, "a cost of speaker verification; spoofing is selected by the eer"),
        (speaker_tree, {"evaluate__trials": None}, "there are no evaluate.trials"),
    ],
)
def test_a_cost_that_is_not_defined_does_not_select(
    make: Any, changes: dict[str, Any], says: str, tones: Path
) -> None:
    tree = make(tones, **changes)
    tree["evaluate"]["select"] = "min_dcf_0.01"
    with pytest.raises(ConfigError, match=says):
        recipe(tree)


def test_what_selects_is_the_same_in_all_phases(tones: Path) -> None:
    phase = {"name": "one", "evaluate": {"select": "min_dcf_0.01"}}
    with pytest.raises(ConfigError, match=r"phase 'one' changes evaluate\.select"):
        resolve_phases(recipe(speaker_tree(tones) | {"phases": [phase]}))
