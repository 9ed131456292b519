"""Averages of weights: of the steps or of checkpoints; what is saved is what was evaluated."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from glottis.errors import ConfigError
from glottis.losses import LossOutput
from glottis.models import read_card
from glottis.report.history import read_metrics
from glottis.score.answer import resolve_checkpoint
from glottis.train import train_recipe
from glottis.train.assemble import assemble
from glottis.train.averaging import CheckpointMean, MovingAverage
from glottis.train.checkpoint import CheckpointFolder, load_state, read_weights
from glottis.train.ending import refresh_norms
from glottis.train.evaluation import make_evaluator
from glottis.train.state import Evaluation, State
from glottis.train.task import Task
from helpers.tones import recipe, speaker_tree

HEAD_ONLY = {
    **{"name": "head only", "parts": ["network.embedding.*", "head.*"]},
    "train": {"steps": 3},
}
EVERYTHING = {"name": "everything", "train": {"steps": 3}}
EMA = {"kind": "ema", "decay": 0.5}


def tree(tones: Path, average: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    """Five steps, each evaluated and saved."""
    short = {"evaluate__every_steps": 1, "log__every_steps": 1, "checkpoint__every_steps": 1}
    small = {"batch__size": 4, "data__crop_seconds": 0.25, "train__steps": 5}
    made = speaker_tree(tones, **{**small, "checkpoint__keep": 9, **short, **changes})
    return made if average is None else made | {"average": average}


def saved(run: Path, step: int | str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights and state of a checkpoint."""
    name = step if isinstance(step, str) else f"step-{step:08d}"
    folder = run / "checkpoints" / name
    return read_weights(folder), load_state(folder, torch.device("cpu"))


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Scripted:
    """An evaluator that gives these numbers, one after the other, and keeps what it was shown."""

    def __init__(self, numbers: list[float]) -> None:
        self.numbers, self.shown = numbers, list[dict[str, torch.Tensor]]()

    def __call__(self, task: Task) -> Evaluation:
        task.eval()
        number = self.numbers[min(len(self.shown), len(self.numbers) - 1)]
        state = task.embedder.state_dict()
        self.shown.append({name: value.clone() for name, value in state.items()})
        return Evaluation({"dev/eer": number}, number, {"eer": number})

    def compare(self, best: Any, now: Any) -> Any:
        raise AssertionError


def script(monkeypatch: pytest.MonkeyPatch, numbers: list[float]) -> Scripted:
    made = Scripted(numbers)

    def scripted(*words: Any) -> Scripted:
        assert make_evaluator(*words) is not None
        return made

    monkeypatch.setattr("glottis.train.assemble.make_evaluator", scripted)
    return made


# ---------------------------------------------------------------- ema


def test_a_moving_average_follows_its_formula_and_whole_numbers_are_taken_over() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    network.register_buffer("index", torch.tensor([3, 7]))  # 0.9 * 3 + 0.1 * 3 would become 2
    average = MovingAverage(network, 0.9)
    rng = torch.Generator().manual_seed(1)
    expected: dict[str, torch.Tensor] = {}
    for number in range(4):
        network(torch.randn(8, 3, generator=rng))
        with torch.no_grad():
            network[0].weight += torch.randn(4, 3, generator=rng)
        average.after_step(network, torch.tensor(True))
        for name, value in network.state_dict().items():
            old = value if number == 0 else expected[name]
            mixed = 0.9 * old + 0.1 * value if value.is_floating_point() else value
            expected[name] = mixed.clone()
    with average.shown(network):
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, expected[name])
        assert network[1].num_batches_tracked == 4
        assert network.index.tolist() == [3, 7]
    assert not torch.equal(network[0].weight, expected["0.weight"])


def test_a_skipped_step_does_not_move_the_average(tones: Path, tmp_path: Path) -> None:
    """The third of four steps has a loss that is not finite."""
    made = assemble(recipe(tree(tones, EMA, train__steps=4, evaluate={})), tmp_path / "run")
    calls: list[int] = []

    def poisoned(module: nn.Module, inputs: Any, output: LossOutput) -> LossOutput:
        calls.append(1)
        factor = float("nan") if len(calls) == 3 else 1.0
        return LossOutput(output.loss * factor, output.stats)

    made.trainer.task.head.register_forward_hook(poisoned)
    made.trainer.train(State())
    shown = {step: saved(tmp_path / "run", step) for step in range(1, 5)}
    assert equal(shown[2][0], shown[3][0])
    assert equal(shown[2][1]["network"], shown[3][1]["network"])
    assert not equal(shown[3][0], shown[4][0])
    assert not equal(shown[2][0], shown[2][1]["network"])  # else nothing was shown


def test_a_checkpoint_holds_the_average_that_was_evaluated_and_the_training_is_the_same(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = script(monkeypatch, [0.3, 0.2, 0.1])
    train_recipe(recipe(tree(tones, EMA, train__steps=3)), tmp_path / "ema")
    train_recipe(recipe(tree(tones, None, train__steps=3)), tmp_path / "raw")
    for step in (1, 2, 3):
        average, state = saved(tmp_path / "ema", step)
        assert equal(average, evaluator.shown[step - 1])
        assert equal(state["network"], saved(tmp_path / "raw", step)[0])
    before, now = saved(tmp_path / "ema", 2)[0], saved(tmp_path / "ema", 3)
    for name in (n for n, value in before.items() if value.is_floating_point()):
        torch.testing.assert_close(now[0][name], 0.5 * (before[name] + now[1]["network"][name]))
    card = read_card(tmp_path / "ema" / "checkpoints" / "best")
    assert card["extra"]["average"]["decay"] == 0.5


def test_a_resume_with_a_moving_average_is_exact_in_any_phase(tones: Path, tmp_path: Path) -> None:
    made = recipe(tree(tones, EMA, evaluate={}) | {"phases": [HEAD_ONLY, EVERYTHING]})
    train_recipe(made, tmp_path / "run")
    whole = saved(tmp_path / "run", 6)
    frozen = [name for name in whole[0] if name.endswith("stem.weight")]
    assert frozen
    first = saved(tmp_path / "run", 3)
    assert torch.equal(first[0][frozen[0]], first[1]["network"][frozen[0]])
    for stop in (4, 2):
        checkpoint = tmp_path / "run" / "checkpoints" / f"step-{stop:08d}"
        train_recipe(made, tmp_path / "run", resume=True, checkpoint=checkpoint)
        again = saved(tmp_path / "run", 6)
        assert equal(again[0], whole[0])
        assert equal(again[1]["network"], whole[1]["network"])
        assert again[1]["averaged_steps"] == 6  # it went on over the phases


def test_a_roll_back_restores_the_average_and_the_network_of_the_best(
    tones: Path, tmp_path: Path
) -> None:
    guarded = tree(tones, EMA, train__steps=4) | {"guard": {"evaluations": 1}}
    made = assemble(recipe(guarded), tmp_path / "run")
    made.shell["evaluator"] = Scripted([0.3, 0.1, 0.4, 0.2])
    trainer = made.enter(0)

    def worse(state: State, result: Evaluation, best: bool) -> dict[str, float]:
        names = ("dev/minus_best", "dev/minus_best_low", "dev/minus_best_high")
        count = float(state.step == 3)
        return dict.fromkeys(names, 0.3) | {"dev/worse_in_a_row": count}

    trainer._against_best = worse  # type: ignore[method-assign]
    trainer.train(State())
    assert [e["step"] for e in read_metrics(tmp_path / "run") if e.get("event")] == [3]
    best, back = saved(tmp_path / "run", "best"), saved(tmp_path / "run", 3)
    assert best[1]["step"] == 2
    assert equal(back[0], best[0])
    assert equal(back[1]["network"], best[1]["network"])
    assert not equal(saved(tmp_path / "run", 4)[0], back[0])


# ---------------------------------------------------------------- means of checkpoints


def test_the_last_checkpoints_become_one_and_the_better_is_the_runs_own(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator = script(monkeypatch, [0.3, 0.2, 0.25, 0.21, 0.1])
    made = recipe(tree(tones, {"kind": "last", "count": 2, "refresh_batches": 2}, train__steps=4))
    with caplog.at_level(logging.INFO, "glottis"):
        result = train_recipe(made, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints" / "average"
    mean = read_weights(folder)
    a, b = saved(tmp_path / "run", 3)[0], saved(tmp_path / "run", 4)[0]
    statistics = [name for name in mean if name.endswith(("running_mean", "running_var"))]
    assert statistics
    for name in mean.keys() - statistics:
        if mean[name].is_floating_point():
            torch.testing.assert_close(mean[name], (a[name] + b[name]) / 2)
        else:
            assert mean[name] == 2  # batches that were seen
    assert not any(torch.allclose(mean[n], (a[n] + b[n]) / 2) for n in statistics)
    assert equal(mean, evaluator.shown[-1])
    assert result["average"] == {"averaged_steps": [3, 4], "development": 0.1}
    assert (result["best_step"], result["best_development"]) == (2, 0.2)
    assert Path(result["checkpoint"]) == folder == resolve_checkpoint(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "finished.json").read_text()) == result
    assert any("the run's own is 'average'" in line for line in caplog.messages)
    assert read_card(folder)["extra"]["averaged_steps"] == [3, 4]
    assert read_metrics(tmp_path / "run")[-1]["average/eer"] == 0.1


def test_an_average_that_is_no_better_leaves_the_best_and_a_resume_knows_the_best_ones(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [0.2, 0.1, 0.4, 0.3, 0.5, 0.1]
    script(monkeypatch, numbers)
    average = {"kind": "best", "count": 3, "refresh_batches": 1}
    made = recipe(tree(tones, average, checkpoint__keep=1))
    result = train_recipe(made, tmp_path / "run")
    assert result["average"]["averaged_steps"] == [1, 2, 4]
    assert Path(result["checkpoint"]).name == "best"  # a tie: the one that was there first
    names = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    steps = [f"step-{n:08d}" for n in (1, 2, 4, 5)]
    assert names == ["average", "best", "latest", *steps]
    whole = (tmp_path / "run" / "checkpoints" / "average" / "model.safetensors").read_bytes()
    script(monkeypatch, numbers[4:])
    checkpoint = tmp_path / "run" / "checkpoints" / steps[2]
    again = train_recipe(made, tmp_path / "run", resume=True, checkpoint=checkpoint)
    assert again["average"] == result["average"]
    now = (tmp_path / "run" / "checkpoints" / "average" / "model.safetensors").read_bytes()
    assert now == whole


def test_statistics_of_frozen_norms_are_not_refreshed(tones: Path, tmp_path: Path) -> None:
    one = {"name": "head only", "parts": ["network.embedding", "network.stages.3", "head"]}
    made = assemble(recipe(tree(tones, None, evaluate={}) | {"phases": [one]}), tmp_path / "run")
    task = made.trainer.task
    before = {name: value.clone() for name, value in task.embedder.named_buffers()}
    count = refresh_norms(made.trainer, 0, 1)
    now = dict(task.embedder.named_buffers())
    moved = {name for name in before if not torch.equal(now[name], before[name])}
    assert moved
    assert all(".stages.3." in name for name in moved)
    assert count == len({name.rpartition(".")[0] for name in moved})
    norm = next(m for m in task.embedder.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.momentum == 0.1


def test_refreshed_statistics_are_those_of_all_the_batches(tones: Path, tmp_path: Path) -> None:
    """As `torch.optim.swa_utils.update_bn` gathers them."""
    made = assemble(recipe(tree(tones, None, evaluate={})), tmp_path / "run").trainer
    refresh_norms(made, 0, 3)
    embedder = made.task.embedder
    ours = {name: value.clone() for name, value in embedder.named_buffers()}
    waves = [batch.split(1)[0].wave / 32768 for batch in made.loader.batches(0, 3)]
    torch.optim.swa_utils.update_bn(waves, embedder)
    for name, value in embedder.named_buffers():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


def test_a_network_without_batch_norm_reads_no_batches(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model": {"name": "ge2e", "hidden_size": 8, "embedding_size": 4}, "evaluate": {}}
    made = assemble(recipe(tree(tones, None, **changes)), tmp_path / "run").trainer
    monkeypatch.setattr(type(made.loader), "batches", None)
    assert refresh_norms(made, 0, 5) == 0


def test_what_a_guard_took_back_is_not_averaged() -> None:
    network = nn.Linear(1, 1)
    last, best = (CheckpointMean(kind, 2, 1) for kind in ("last", "best"))
    for step, number in enumerate([0.3, 0.2, 0.25], start=1):
        best.after_eval(step, number)
        if step == 3:
            for one in (last, best):
                one.roll_back(network, {}, step)
        last.before_save(step)
    assert last.steps == (3,)
    assert best.steps == (2,)


def test_a_checkpoint_that_is_gone_is_not_averaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = CheckpointMean("best", 2, 1)
    (tmp_path / "step-00000004").mkdir()
    (tmp_path / "step-00000004" / "state.pt").touch()
    held = {"to_average": [[0.1, 3], [0.2, 4]]}
    made.restore(nn.Linear(1, 1), held, CheckpointFolder(tmp_path, 1))
    assert made.steps == (4,)
    assert "step 3 is not in" in caplog.text


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("average", "changes", "says"),
    [
        ({"kind": "last", "count": 5}, {"checkpoint__keep": 3}, "checkpoint.keep is 3"),
        ({"kind": "best"}, {"evaluate": {}}, "nothing selects"),
        ({"kind": "last"}, {"evaluate": {}}, "nothing selects"),
        ({"kind": "last", "decay": 0.9}, {}, "acts only with kind: ema"),
        ({"kind": "ema", "count": 5}, {}, "acts only with kind: last or best"),
        ({"kind": "swa"}, {}, "average.kind"),
        ({"kind": "ema", "decay": 1.0}, {}, "average.decay"),
    ],
)
def test_an_average_that_cannot_be_is_refused(
    average: dict[str, Any], changes: dict[str, Any], says: str, tones: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        recipe(tree(tones, average, **changes))


def test_more_checkpoints_than_the_run_makes_are_refused(tones: Path, tmp_path: Path) -> None:
    made = recipe(tree(tones, {"kind": "best", "count": 3}, evaluate__every_steps=4))
    with pytest.raises(ConfigError, match=r"count is 3; the run makes 2 checkpoints"):
        assemble(made, tmp_path / "run")
