"""The stage guard: a phase that makes the model worse beyond doubt is taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glottis.models import read_card
from glottis.report.history import read_metrics
from glottis.rng import generator
from glottis.score import evaluate_speaker
from glottis.train import train_recipe
from glottis.train.assemble import Outcome, assemble
from glottis.train.checkpoint import read_weights
from glottis.train.evaluation import _evaluation
from glottis.train.guards import StageGuard, StageGuardConfig
from glottis.train.state import Evaluation, State
from glottis.train.task import Task
from helpers.tones import recipe, speaker_tree, write_corpus

PHASES: list[dict[str, Any]] = [
    {"name": "head only", "parts": ["network.embedding", "head"], "train": {"steps": 2}},
    {"name": "everything", "train": {"steps": 8}},
]


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten development speakers: enough for an interval."""
    return write_corpus(tmp_path_factory.mktemp("voices") / "corpus", dev=10, clips=3)


def tree(voices: Path, guard: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    short = {"evaluate__every_steps": 1, "log__every_steps": 1, "checkpoint__every_steps": 1}
    made = speaker_tree(voices, **{**short, "checkpoint__keep": 20, **changes})
    return made | {"phases": PHASES} | ({} if guard is None else {"guard": guard})


class Scripted:
    """An evaluator whose scores are as good as a list says; differences are measured for real."""

    def __init__(self, real: Any, quality: list[float]) -> None:
        self.real, self.quality, self.calls = real, quality, 0

    def __call__(self, task: Task) -> Evaluation:
        task.eval()
        quality = self.quality[min(self.calls, len(self.quality) - 1)]
        self.calls += 1
        trials = self.real.trials
        noise = generator(4, "scores").standard_normal(len(trials)).astype(np.float32)
        scores = quality * trials.target.astype(np.float32) + noise
        result = evaluate_speaker(scores, trials, self.real.speakers)
        return _evaluation(result, trials.source, scores)

    def compare(self, best: np.ndarray, now: np.ndarray) -> Any:
        return self.real.compare(best, now)


def run(outcome: Outcome, quality: list[float]) -> tuple[Any, State]:
    outcome.shell["evaluator"] = Scripted(outcome.shell["evaluator"], quality)
    first = outcome.enter(0)
    state = first.train(State())
    state.next_phase(first.phase.steps_per_epoch)
    trainer = outcome.enter(1, first)
    return trainer, trainer.train(state)


def events(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(folder) if line.get("event")]


def test_two_evaluations_that_are_worse_beyond_doubt_bring_the_best_weights_back(
    voices: Path, tmp_path: Path
) -> None:
    made = assemble(recipe(tree(voices, {"evaluations": 2})), tmp_path / "run")
    trainer, state = run(made, [3.0, 6.0, 1.0, 5.9, 1.0, 1.0, 6.0])
    folder = tmp_path / "run" / "checkpoints"
    (event,) = events(tmp_path / "run")
    assert event["step"] == 6  # 3 was worse, 4 was not beyond doubt, 5 and 6 were
    assert "back to the weights of step 2" in event["done"]
    assert "[H8] 2 evaluations in a row" in event["why"]
    best, after = (read_weights(folder / f"step-{n:08d}") for n in (2, 6))
    assert all(torch.equal(best[name], after[name]) for name in best)
    later = read_weights(folder / "step-00000007")
    assert not all(torch.equal(best[name], later[name]) for name in best)  # it goes on learning
    lines = [line for line in read_metrics(tmp_path / "run") if "dev/minus_best" in line]
    assert [line.get("dev/worse_in_a_row") for line in lines if line["step"] <= 6] == [1, 0, 1, 2]
    rates = {g["lr"].item() for g in trainer.optim.inner.param_groups}
    assert sorted(rates) == pytest.approx(
        [1e-4, 1e-3]
    )  # the network at a tenth, the loss as before
    assert state.step == 10


@pytest.mark.parametrize(
    ("later", "stays"),
    [
        ({"parts": ["network.embedding", "head"]}, False),  # frozen now, trained before
        ({"loss": {"name": "sub_centre_aam"}}, True),  # class weights of another shape
    ],
)
def test_the_best_weights_may_be_of_a_phase_that_trained_other_things(
    later: dict[str, Any], stays: bool, voices: Path, tmp_path: Path
) -> None:
    phases = [{"name": "all", "train": {"steps": 2}}, {"name": "b", "train": {"steps": 4}} | later]
    made = tree(voices, {"evaluations": 1}) | {"phases": phases}
    _, state = run(assemble(recipe(made), tmp_path / "run"), [3.0, 6.0, 1.0, 6.0])
    assert state.step == 6
    (event,) = events(tmp_path / "run")
    assert event["done"].startswith("back to the weights of step 2")
    assert ("the loss, which is another one by now, stays" in event["done"]) == stays
    folder = tmp_path / "run" / "checkpoints"
    cards = [read_card(folder / f"step-{n:08d}")["extra"]["development"] for n in (2, 3)]
    assert cards[0]["eer"] == cards[1]["eer"]  # the same weights


def test_a_guard_may_freeze_again_or_stop(voices: Path, tmp_path: Path) -> None:
    quality = [3.0, 6.0, 1.0]
    made = assemble(recipe(tree(voices, {"evaluations": 1, "action": "stop"})), tmp_path / "stop")
    _, state = run(made, quality)
    assert state.step == 3
    assert "the run ends" in events(tmp_path / "stop")[0]["done"]
    assert State.restored(
        state.saved(), state.best, state.best_step
    ).stopped  # a resume adds nothing
    frozen = {"evaluations": 1, "action": "freeze"}
    made = assemble(recipe(tree(voices, frozen)), tmp_path / "freeze")
    trainer, state = run(made, [*quality, 6.0])
    assert state.step == 10
    learns = {n for n, p in trainer.task.named_parameters() if p.requires_grad}
    assert all("embedding." in name or name.startswith("head.") for name in learns)
    checkpoints = tmp_path / "freeze" / "checkpoints"
    best, last = (read_weights(checkpoints / f"step-{n:08d}") for n in (2, 10))
    moved = {name for name in best if not torch.equal(best[name], last[name])}
    assert moved == {name for name in best if ".embedding." in name}


def test_what_did_not_help_ends_the_run(voices: Path, tmp_path: Path) -> None:
    frozen = {"evaluations": 1, "action": "freeze"}
    made = assemble(recipe(tree(voices, frozen)), tmp_path / "freeze")
    assert run(made, [3.0, 6.0, 1.0])[1].step == 4  # frozen at 3, no better at 4
    lower = {"evaluations": 1, "factor": 0.05}
    made = assemble(recipe(tree(voices, lower)), tmp_path / "lower")
    assert run(made, [3.0, 6.0, 1.0])[1].step == 5  # 0.05, 0.0025, 0.000125


def test_without_a_guard_nothing_is_taken_back(voices: Path, tmp_path: Path) -> None:
    made = assemble(recipe(tree(voices, None)), tmp_path / "run")
    _, state = run(made, [3.0, 6.0, 1.0])
    assert state.worse == 8
    assert events(tmp_path / "run") == []


def test_a_difference_within_the_noise_is_no_reason() -> None:
    guard = StageGuard(StageGuardConfig(evaluations=2))
    worse = {"dev/minus_best": 0.02, "dev/minus_best_low": 0.01, "dev/minus_best_high": 0.03}
    assert guard.after_eval(1, {**worse, "dev/worse_in_a_row": 1.0}) is None
    assert guard.after_eval(1, {"dev/minus_best": 0.3}) is None  # too few voices for an interval
    verdict = guard.after_eval(2, {**worse, "dev/worse_in_a_row": 2.0})
    assert verdict is not None
    assert "2.00 points of EER, 95 % interval [1.00, 3.00]" in verdict.why


@pytest.mark.parametrize("action", ["lower", "freeze"])
@pytest.mark.parametrize("stop", [5, 6, 8])
def test_a_resume_after_a_roll_back_is_exact(
    stop: int, action: str, voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores are a function of the step here, so that both halves see the same ones."""
    quality = {3: 1.0, 4: 5.9, 5: 1.0, 6: 1.0}

    class ByStep(Scripted):
        def __call__(self, task: Task) -> Evaluation:
            return super().__call__(task)

    made = recipe(tree(voices, {"evaluations": 2, "action": action}))

    def scripted(*words: Any) -> Any:
        from glottis.train.evaluation import make_evaluator

        real = make_evaluator(*words)
        scripted = ByStep(real, [3.0, 6.0, *(quality.get(n, 6.0) for n in range(3, 30))])
        scripted.calls = begin
        return scripted

    monkeypatch.setattr("glottis.train.assemble.make_evaluator", scripted)
    begin = 0
    train_recipe(made, tmp_path / "whole")
    train_recipe(made, tmp_path / "cut")
    begin = stop
    checkpoint = tmp_path / "cut" / "checkpoints" / f"step-{stop:08d}"
    train_recipe(made, tmp_path / "cut", resume=True, checkpoint=checkpoint)
    assert len(events(tmp_path / "cut")) == 1
    name = "checkpoints/latest/model.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
