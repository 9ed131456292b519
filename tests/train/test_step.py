"""The step: a bad one changes nothing, what is frozen stays, what is learned is complete."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.errors import ConfigError, DataError, ModelError, TrainingStopped
from glottis.report.history import read_metrics
from glottis.train import distributed, train_recipe
from glottis.train.assemble import assemble
from glottis.train.engine import Trainer
from glottis.train.state import State
from helpers.tones import recipe, speaker_tree, spoof_tree, write_corpus
from helpers.training import one_step, trainer


def everything(made: Trainer) -> dict[str, torch.Tensor]:
    found = {f"task.{k}": v.clone() for k, v in made.task.state_dict().items()}
    for index, moments in enumerate(made.optim.inner.state.values()):
        for name, value in moments.items():
            found[f"moment.{index}.{name}"] = torch.as_tensor(value).clone()
    found["applied"] = made.optim.applied.clone()
    return found


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_bad_step_changes_nothing_and_is_counted(
    tones: Path, tmp_path: Path, poison: float
) -> None:
    made = trainer(tones, tmp_path)
    one_step(made)
    before = everything(made)
    layer = made.task.embedder.network.stages[2][0].conv1
    hook = layer.register_forward_hook(lambda m, i, out: out * poison)
    stats = one_step(made, 1)
    hook.remove()
    assert stats["skipped"].item() == 1
    after = everything(made)
    for name, value in before.items():  # batch-norm statistics too: one bad batch must not stay
        assert torch.equal(value, after[name]), name
    assert one_step(made, 2)["skipped"].item() == 0


def test_the_loss_head_is_trained_with_the_embedder(tones: Path, tmp_path: Path) -> None:
    made = trainer(tones, tmp_path)
    before = {k: v.clone() for k, v in made.task.named_parameters()}
    one_step(made)
    still = [k for k, v in made.task.named_parameters() if torch.equal(v, before[k])]
    assert still == []
    assert any(name.startswith("head.") for name in before)


def test_a_parameter_that_no_gradient_reaches_stops_the_run(tones: Path, tmp_path: Path) -> None:
    made = trainer(tones, tmp_path)
    made.task.embedder.network.forgotten = torch.nn.Linear(3, 2)
    with pytest.raises(ModelError, match=r"O2.*no gradient reaches 2 .*forgotten\.weight"):
        made.train(State())


def test_frozen_parts_stay_in_eval_and_do_not_move(tones: Path, tmp_path: Path) -> None:
    made = trainer(tones, tmp_path)
    frozen = made.task.embedder.network.stages[0]
    frozen.requires_grad_(False)
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    made.task.train()
    assert not any(module.training for module in frozen.modules())
    one_step(made)
    assert all(torch.equal(v, before[k]) for k, v in frozen.state_dict().items())


def test_too_many_bad_steps_stop_the_run_and_leave_its_checkpoints(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from glottis.train import task as task_module

    forward = task_module.Task.forward
    calls = []

    def sick(self: Any, *inputs: Any) -> Any:
        result = forward(self, *inputs)
        calls.append(1)
        return result._replace(loss=result.loss * float("nan")) if len(calls) > 3 else result

    monkeypatch.setattr(task_module.Task, "forward", sick)
    tree = speaker_tree(
        tones,
        evaluate={},
        train={"steps": 12, "skipped_budget": 2},
        checkpoint={"every_steps": 3},
        log={"every_steps": 1},
        nonfinite={"action": "stop"},
    )
    logger = logging.getLogger("glottis")
    level = logger.level
    with pytest.raises(TrainingStopped, match="3 of the last 1,000 steps"):
        train_recipe(recipe(tree), tmp_path / "run")
    assert logger.level == level  # a stopped run silences nobody
    assert logger.handlers == []
    assert (tmp_path / "run" / "checkpoints" / "latest" / "state.pt").exists()
    records = read_metrics(tmp_path / "run")
    assert sum(r.get("train/skipped_steps", 0) for r in records) == 3
    assert records[0]["train/loss"] > 0


def test_the_first_fp16_scale_may_overflow_and_then_adapts(tones: Path, tmp_path: Path) -> None:
    made = trainer(tones, tmp_path, train__precision="fp16")
    skipped = [one_step(made, i)["skipped"].item() for i in range(6)]
    assert skipped[-1] == 0
    assert made.precision.scale.item() == 2.0**16 / 2 ** sum(skipped)
    assert made.optim.applied.item() == 6 - sum(skipped)


# ------------------------------------------------------------------------------ what is refused


def test_selection_on_training_speakers_is_refused(tones: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(
        "1 s00_0_bonafide.wav s00_1_bonafide.wav\n0 s00_0_bonafide.wav s07_1_bonafide.wav\n"
    )
    with pytest.raises(DataError, match="P1"):
        trainer(tones, tmp_path, evaluate={"trials": str(path)})


def test_selection_on_evaluation_rows_is_refused_unless_allowed(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "tones")
    table = (root / "manifest.csv").read_text().replace(",dev,", ",test,")
    (root / "manifest.csv").write_text(table)
    tree = speaker_tree(root, train__steps=1)
    with pytest.raises(DataError, match="P6"):
        assemble(recipe(tree), tmp_path / "run")
    tree["allow"] = ["P6"]
    assemble(recipe(tree), tmp_path / "run")


def test_a_loss_of_the_wrong_task_or_batch_is_refused(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs grouped batches"):
        trainer(tones, tmp_path, loss={"name": "angular_prototypical"})
    with pytest.raises(ConfigError, match="for the task 'spoof'"):
        trainer(tones, tmp_path, loss={"name": "focal"})
    with pytest.raises(ConfigError, match="is a spoof model"):
        trainer(tones, tmp_path, model={"name": "aasist_l"})
    with pytest.raises(ConfigError, match="does not belong to the task"):
        recipe(speaker_tree(tones, evaluate={"protocol": "x"}))


def test_augmentations_that_do_not_fit_the_training_are_refused(
    tones: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="makes new classes"):
        trainer(tones, tmp_path, spoof_tree, augment=[{"name": "speed", "as_new_speakers": True}])
    with pytest.raises(ConfigError, match="takes the waveform itself"):
        trainer(tones, tmp_path, spoof_tree, augment=[{"name": "frequency_mask"}])


def test_chance_of_a_grouped_loss_is_that_of_its_batches(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grouped = {"batch": {"speakers": 3, "utterances": 2}, "loss": {"name": "angular_prototypical"}}
    with caplog.at_level(logging.INFO):
        trainer(tones, tmp_path, **grouped).brief()
    assert "is chance for 3 classes" in caplog.text


def test_a_last_batch_smaller_than_the_processes_is_refused(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(ConfigError, match="has 1 clips for 2 processes"):
        trainer(tones, tmp_path, **{"batch": {"size": 23}, "data__drop_last": False})


def test_a_run_folder_of_another_recipe_is_refused(tones: Path, tmp_path: Path) -> None:
    trainer(tones, tmp_path)
    with pytest.raises(ConfigError, match=r"optim\.rate"):
        trainer(tones, tmp_path, optim__rate=0.5)


# ------------------------------------------------------------------------------ seen speakers, init


def test_a_held_out_loss_exists_for_training_speakers_only(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "tones")
    lines = (root / "manifest.csv").read_text().splitlines()
    moved = [
        line.replace(",train,", ",dev_seen,") if "_3_bonafide" in line else line for line in lines
    ]
    (root / "manifest.csv").write_text("\n".join(moved) + "\n")
    tree = speaker_tree(root, train__steps=2, evaluate={"dev_seen": {"split": "dev_seen"}})
    tree["evaluate"] |= {"trials": str(root / "trials_dev.txt"), "every_steps": 2}
    path = root / "trials_dev.txt"
    kept = [line for line in path.read_text().splitlines() if "_3_bonafide" not in line]
    path.write_text("\n".join(kept) + "\n")
    train_recipe(recipe(tree), tmp_path / "run")
    record = read_metrics(tmp_path / "run")[-1]
    assert record["dev_seen/gap"] == pytest.approx(
        record["dev_seen/loss"] - record["dev_seen/train_loss"]
    )
    tree["evaluate"]["dev_seen"] = {"split": "dev", "label": "bonafide"}
    with pytest.raises(DataError, match="not classes of the model"):
        train_recipe(recipe(tree), tmp_path / "strangers")


def test_a_held_out_loss_needs_no_list_and_selects_nothing(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "tones")
    table = (root / "manifest.csv").read_text().splitlines()
    moved = [line.replace(",train,", ",dev_seen,") if "_3_bona" in line else line for line in table]
    (root / "manifest.csv").write_text("\n".join(moved) + "\n")
    seen = {"dev_seen": {"split": "dev_seen"}}
    result = train_recipe(
        recipe(speaker_tree(root, train__steps=1, evaluate=seen)), tmp_path / "run"
    )
    assert read_metrics(tmp_path / "run")[-1]["dev_seen/loss"] > 0
    assert result["best_step"] is None
    grouped = {"batch": {"speakers": 4, "utterances": 2}, "loss": {"name": "angular_prototypical"}}
    with pytest.raises(ConfigError, match="dev_seen asks for a loss over classes"):
        trainer(root, tmp_path / "grouped", evaluate=seen, **grouped)


def test_init_starts_from_trained_weights_and_refuses_holes(tones: Path, tmp_path: Path) -> None:
    tree = speaker_tree(tones, train__steps=1, evaluate={}, checkpoint__every_steps=1)
    train_recipe(recipe(tree), tmp_path / "first")
    source = tmp_path / "first" / "checkpoints" / "latest"
    made = trainer(tones, tmp_path, init=str(source))
    from safetensors.torch import load_file

    saved = load_file(source / "model.safetensors")
    for name, value in made.task.embedder.state_dict().items():
        assert torch.equal(value, saved[name])
    with pytest.raises(Exception, match="embedding"):
        trainer(tones, tmp_path / "b", init=str(source), model__embedding_size=32)
    other = trainer(
        tones,
        tmp_path / "c",
        init=str(source),
        model__embedding_size=32,
        new_parts=["network.embedding.*"],
    )
    assert torch.equal(other.task.embedder.network.stem.weight, saved["network.stem.weight"])


def test_a_countermeasure_draws_its_filter_mask_from_the_step(tones: Path, tmp_path: Path) -> None:
    made = trainer(tones, tmp_path, spoof_tree, model__frequency_mask=True)
    losses = []
    for _ in range(2):
        torch.manual_seed(1)
        made.task.train()
        batch = next(made.loader.batches(4, 5))
        loss = made.task.forward(batch.split(1)[0], made.precision).loss
        losses.append(loss.item())
    assert losses[0] == losses[1]
