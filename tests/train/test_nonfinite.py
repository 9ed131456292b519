"""Steps that are not finite: named to the module and the clip, remedied by policy, replayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from glottis.errors import ModelError, TrainingStopped
from glottis.report.history import events_of, read_metrics
from glottis.train import train_recipe
from glottis.train.bundle import replay
from glottis.train.checkpoint import load_state, read_weights
from glottis.train.engine import Trainer
from glottis.train.forensics import Finding
from glottis.train.state import State
from helpers.cli import glottis
from helpers.tones import recipe, speaker_tree, spoof_tree
from helpers.training import trainer

STEPS = 12
HALF = {"train__precision": "fp16", "batch__size": 4, "data__crop_seconds": 0.2}  # slow on a CPU


def made(tones: Path, tmp_path: Path, **changes: Any) -> Trainer:
    common: dict[str, Any] = {
        **{"train__steps": STEPS, "train__skipped_budget": 2, "log__every_steps": 1},
        **{"checkpoint__every_steps": 3},
    }
    return trainer(tones, tmp_path, **{**common, **changes})


def at_step(one: Trainer, number: int, act: Callable[[], None]) -> None:
    """Something happens from outside before the network hears the batch of a step."""
    calls = []

    def before(module: nn.Module, inputs: Any) -> None:
        calls.append(1)
        if len(calls) == number:
            act()

    one.task.embedder.network.register_forward_pre_hook(before)


def before_step(one: Trainer, number: int, act: Callable[[], object]) -> None:
    """Something happens from outside between two steps."""
    batches = one.loader.batches

    def watched(start: int, stop: int) -> Any:
        for step, batch in enumerate(batches(start, stop), start + 1):
            if step == number:
                act()
            yield batch

    one.loader.batches = watched  # type: ignore[method-assign]


def layer(one: Trainer) -> nn.Module:
    return one.task.embedder.network.stages[2][0].conv1  # type: ignore[no-any-return]


def events(one: Trainer) -> list[dict[str, Any]]:
    return [line for line in read_metrics(one.run.folder) if "event" in line]


def until_lowered(one: Trainer, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A forward hook that acts from the sixth step until the rate is lowered."""
    calls = []

    def after(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        calls.append(1)
        return change(output) if len(calls) > 5 and one.optim.lowered == 1 else None

    return after


NAN = float("nan")


def test_weights_that_were_written_to_are_named_and_taken_back(tones: Path, tmp_path: Path) -> None:
    one = made(tones, tmp_path)
    at_step(one, 5, lambda: layer(one).weight.data.view(-1)[7].fill_(NAN))
    state = one.train(State())
    assert state.step == STEPS
    (event,) = events(one)
    assert "weights of 'network.stages.2.0.conv1.weight' (1 NaN" in event["why"]
    assert "back to the weights of step 3" in event["done"]
    latest = one.run.checkpoints.folder / "latest"
    (note,) = events_of(latest)  # what glottis evaluate says of it
    assert note.startswith("training, step 5: [H1] weights are not finite; first not finite")
    assert one.optim.lowered == 1  # no rate has done this
    assert all(bool(torch.isfinite(p).all()) for p in one.task.parameters())
    lines = [r for r in read_metrics(one.run.folder) if "train/skipped_steps" in r]
    assert [r["train/skipped_steps"] for r in lines][4:6] == [1.0, 0.0]


def test_a_bad_activation_is_named_and_the_rate_is_lowered(tones: Path, tmp_path: Path) -> None:
    one = made(tones, tmp_path)
    layer(one).register_forward_hook(until_lowered(one, lambda out: out * NAN))
    state = one.train(State())
    assert state.step == STEPS
    (event,) = events(one)
    assert "output of 'network.stages.2.0.conv1'" in event["why"]
    assert "3 of the last 1,000 steps" in event["why"]
    assert one.optim.lowered == pytest.approx(0.3)
    assert event["step"] == 8  # the third bad step
    assert Path(event["bundle"]).name == "nonfinite-00000008"


def test_a_bad_gradient_is_named(tones: Path, tmp_path: Path) -> None:
    one = made(tones, tmp_path)
    layer(one).weight.register_hook(lambda g: g * NAN if one.optim.lowered == 1 else None)
    with pytest.raises(TrainingStopped, match="nothing was saved yet") as caught:
        one.train(State())  # three bad steps before the first checkpoint
    assert "gradient of 'network.stages.2.0.conv1.weight'" in str(caught.value)


def test_the_gradient_that_a_module_spoils_is_told_from_its_output(
    tones: Path, tmp_path: Path
) -> None:
    one = made(tones, tmp_path, checkpoint__every_steps=1)

    def before(module: nn.Module, inputs: Any) -> Any:
        # the root of something that became 0: a finite value without a finite slope
        (x,) = inputs
        return x + (x[:1, :1] * 0).sqrt() if one.optim.lowered == 1 else x

    norm = one.task.embedder.network.stages[2][0].norm1
    at_step(one, 3, lambda: norm.register_forward_pre_hook(before) and None)
    state = one.train(State())
    assert state.step == STEPS
    assert "gradient behind the output of 'network.stages.2.0.conv1'" in events(one)[0]["why"]


def test_poisoned_batch_norm_statistics_are_restored_without_loss(
    tones: Path, tmp_path: Path
) -> None:
    """Whatever the policy; the weights stay those of the last step."""
    one = made(tones, tmp_path, nonfinite={"action": "stop"})
    norm = one.task.embedder.network.stages[1][0].norm1
    before_step(one, 8, lambda: norm.running_var.fill_(NAN))
    state = one.train(State())
    assert state.step == STEPS
    (event,) = events(one)
    assert "buffers of 'network.stages.1.0.norm1.running_var'" in event["why"]
    assert event["done"] == (
        "network.stages.1.0.norm1.running_var restored from the checkpoint of step 6"
    )
    assert one.optim.applied == STEPS - 1
    assert bool(torch.isfinite(norm.running_var).all())


def test_a_clip_that_becomes_bad_ends_the_run_and_is_named(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made(tones, tmp_path, checkpoint__every_steps=1)
    inputs = type(one.task).inputs

    def spoiled(self: Any, part: Any) -> Any:
        found = inputs(self, part)
        if part.step >= 3:
            found.wave[2, 5], found.features[2, 0, 0] = NAN, NAN
        return found

    monkeypatch.setattr(type(one.task), "inputs", spoiled)
    with pytest.raises(TrainingStopped) as caught:
        one.train(State())
    batch = one.loader.one(5)  # of the third bad step
    clip = one.loader.dataset.utterances[int(batch.rows[2])]
    assert "first not finite: waves (1 NaN" in str(caught.value)
    assert f"clips: {clip}" in str(caught.value)
    assert "look at these clips and at the augmentations" in str(caught.value)


def test_what_half_precision_cannot_hold_goes_on_in_float32(tones: Path, tmp_path: Path) -> None:
    half = {**HALF, "train__steps": 6}
    one = made(tones, tmp_path, **half, train__skipped_budget=0, checkpoint__every_steps=1)
    at_step(one, 4, lambda: layer(one).weight.data.mul_(1e6))
    state = one.train(State())
    (first,) = events(one)
    assert "output of 'network.stages.2.0.conv1'" in first["why"]
    assert "infinite of" in first["why"]
    assert "'network.stages.2.0.conv1' goes on in float32" in first["done"]
    layer(one).weight.data.mul_(1e6)
    heard = torch.randn(1, *layer(one).weight.shape[1:2], 9, 9)
    with one.precision.autocast():
        assert layer(one)(heard).dtype == torch.float32
    again = made(tones, tmp_path / "again", **half)
    assert again.restore(one.run.checkpoints.folder / "latest").in_fp32 == state.in_fp32
    with again.precision.autocast():
        assert layer(again)(heard).dtype == torch.float32


def test_scales_that_fp16_tries_are_no_reason_to_act(tones: Path, tmp_path: Path) -> None:
    one = made(tones, tmp_path, **HALF, train__skipped_budget=0, train__steps=7)
    one.precision.scale.fill_(2.0**15)
    one.train(State())
    lines = [r for r in read_metrics(one.run.folder) if "train/overflow_steps" in r]
    overflows = [r["train/overflow_steps"] for r in lines]
    assert overflows == [r["train/skipped_steps"] for r in lines]
    assert overflows[0] == 1
    assert overflows[-1] == 0
    assert events(one) == []


def test_remedies_that_do_not_last_end_the_run(tones: Path, tmp_path: Path) -> None:
    one = made(
        tones, tmp_path, train__skipped_budget=0, checkpoint__every_steps=1,
        nonfinite={"attempts": 2, "factor": 0.5},
    )  # fmt: skip
    at_step(one, 3, lambda: layer(one).register_forward_hook(lambda m, i, out: out * NAN) and None)
    with pytest.raises(TrainingStopped, match="2 remedies did not last"):
        one.train(State())
    assert one.optim.lowered == 0.25
    assert [event["event"] for event in events(one)] == ["roll back", "roll back", "stopped"]


def test_nothing_that_is_not_finite_is_saved(tones: Path, tmp_path: Path) -> None:
    """The step that would be saved is the one in which the weights go bad."""
    one = made(tones, tmp_path, nonfinite={"action": "stop"})
    at_step(one, 6, lambda: layer(one).weight.data.fill_(NAN))
    with pytest.raises(TrainingStopped, match="weights are not finite"):
        one.train(State())
    assert [path.name for path in one.run.checkpoints.complete()] == ["step-00000003"]


def test_a_run_that_is_resumed_knows_of_the_bad_steps_before(tones: Path, tmp_path: Path) -> None:
    one = made(tones, tmp_path, train__steps=6)
    calls = []

    def after(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        calls.append(1)
        return output * NAN if len(calls) in (4, 5) else None

    layer(one).register_forward_hook(after)
    one.train(State())
    again = made(tones, tmp_path / "again", nonfinite={"action": "stop"})
    state = again.restore(one.run.checkpoints.folder / "latest")
    layer(again).register_forward_hook(lambda m, i, out: out * NAN)
    with pytest.raises(TrainingStopped, match="3 of the last 1,000"):
        again.train(state)


def test_a_bundle_is_replayed_by_one_command(tones: Path, tmp_path: Path) -> None:
    one = made(tones, tmp_path, checkpoint__every_steps=1)
    at_step(one, 4, lambda: layer(one).weight.data.mul_(3e38))
    one.train(State())
    bundle = Path(events(one)[0]["bundle"])
    found = replay(bundle)
    assert found.before == found.now
    assert (found.now.where, found.now.name) == ("output", "network.stages.2.0.conv1")
    said = glottis("replay", str(bundle))
    assert said.code == 0, said.err
    assert "step 6, now: first not finite: output of 'network.stages.2.0.conv1'" in said.out
    assert said.out.endswith("the same place\n")
    report = json.loads((bundle / "report.json").read_text())
    assert [step["step"] for step in report["last_steps"]][:3] == [1, 2, 3]
    assert len(report["utterances"]) == 8
    (bundle / "part.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match=r"part\.safetensors"):
        replay(bundle)
    (bundle / "report.json").unlink()
    with pytest.raises(ModelError, match="no bundle of a step"):
        replay(bundle)


def test_a_bundle_knows_what_the_teacher_said(tones: Path, tmp_path: Path) -> None:
    train_recipe(recipe(speaker_tree(tones, train__steps=1, evaluate={})), tmp_path / "teacher")
    distillation = {"teacher": str(tmp_path / "teacher"), "kind": "cosine"}
    one = made(tones, tmp_path / "student", train__steps=6, distillation=distillation)
    term: Any = one.task.terms[0]
    targets = term.targets
    term.targets = lambda rows: targets(rows) * NAN
    with pytest.raises(TrainingStopped, match="nothing was saved yet"):
        one.train(State())
    found = replay(Path(events(one)[0]["bundle"]))
    assert found.reproduced
    assert (found.now.where, found.now.name) == ("loss", "distillation")


def test_a_replay_has_every_module_in_the_mode_of_the_step(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also batch norms that have no weights, and so no name among what learns."""
    changes: dict[str, Any] = {"model": {"name": "lcnn"}, "train__skipped_budget": 0}
    common = {"train__steps": 4, "log__every_steps": 1, "checkpoint__every_steps": 1}
    one = trainer(tones, tmp_path, spoof_tree, **common, **changes)
    before_step(one, 3, lambda: next(one.task.parameters()).data.fill_(NAN))
    one.train(State())
    modes: dict[str, bool] = {}

    def look(task: Any, *given: Any) -> Finding:
        modes.update({name: module.training for name, module in task.named_modules()})
        return Finding("nothing")

    monkeypatch.setattr("glottis.train.bundle.examine_inputs", look)
    replay(Path(events(one)[0]["bundle"]))
    assert modes == {name: module.training for name, module in one.task.named_modules()}


def test_an_examination_changes_nothing(tones: Path, tmp_path: Path) -> None:
    """A run whose steps were looked at ends with the bits of one where nobody looked."""
    from glottis.train.forensics import examine

    plain, watched = made(tones, tmp_path / "a"), made(tones, tmp_path / "b")
    plain.train(State())
    seen = []

    def look() -> None:
        if not seen:
            seen.append(1)
            (part,) = watched.loader.one(4).split(1)
            before = [b.clone() for b in watched.task.buffers()]
            found, _ = examine(watched.task, part, watched.precision, ["x"] * 8)
            assert found.where == "nothing"
            for old, now in zip(before, watched.task.buffers(), strict=True):
                assert torch.equal(old, now)

    watched.task.register_forward_pre_hook(lambda *_: look())
    watched.train(State())
    for (name, a), b in zip(
        plain.task.state_dict().items(), watched.task.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_a_moving_average_goes_back_too(tones: Path, tmp_path: Path) -> None:
    """Raw weights and average are those of the checkpoint, each its own."""
    one = made(tones, tmp_path, average={"kind": "ema", "decay": 0.9}, train__steps=5)
    before_step(one, 5, lambda: layer(one).weight.data.fill_(NAN))
    one.train(State())
    saved = load_state(one.run.checkpoints.folder / "step-00000003", torch.device("cpu"))
    raw = one.task.embedder.state_dict()
    assert all(torch.equal(value, raw[name]) for name, value in saved["network"].items())
    kept = read_weights(one.run.checkpoints.folder / "step-00000005")
    assert all(bool(torch.isfinite(value).all()) for value in kept.values())
    name = "network.stages.2.0.conv1.weight"
    assert not torch.equal(kept[name], raw[name])
