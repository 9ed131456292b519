"""Phases: what is frozen stays, what goes on keeps its moments, a kill in any phase is exact."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.errors import ConfigError, TrainingStopped
from glottis.report.history import read_metrics
from glottis.train import train_recipe
from glottis.train.assemble import Outcome, assemble
from glottis.train.phases import Ramp
from glottis.train.recipe import load_recipe, resolve_phases
from glottis.train.state import State
from helpers.tones import recipe, speaker_tree

NOISE = [{"name": "noise", "source": "white", "snr_db": [0, 10], "probability": 0.5}]
HEAD_ONLY = {
    **{"name": "head only", "parts": ["network.embedding.*", "head.*"]},
    **{"train": {"steps": 4}, "optim": {"rate": 1e-3}},
}
EVERYTHING: dict[str, Any] = {
    **{"name": "everything", "train": {"steps": 4}},
    **{"optim": {"part_rates": {"network.embedding": 1.0, "network": 0.1}}},
}


def tree(tones: Path, *phases: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A recipe of a few steps with an evaluation every second step."""
    short = {"evaluate__every_steps": 2, "log__every_steps": 1, "checkpoint__every_steps": 2}
    return speaker_tree(tones, **{**short, **changes}) | {"phases": list(phases)}


def outcome(tones: Path, out: Path, *phases: dict[str, Any], **changes: Any) -> Outcome:
    return assemble(recipe(tree(tones, *phases, **changes)), out)


def weights(folder: Path) -> bytes:
    return (folder / "checkpoints" / "latest" / "model.safetensors").read_bytes()


def test_what_is_frozen_does_not_move_and_what_goes_on_keeps_its_moments(
    tones: Path, tmp_path: Path
) -> None:
    made = outcome(tones, tmp_path / "run", HEAD_ONLY, EVERYTHING)
    first = made.trainer
    frozen = {name: value.clone() for name, value in first.task.frozen().items()}
    assert any(name.endswith("running_var") for name in frozen)
    state = first.train(State())
    assert state.step == 4
    now = first.task.frozen()
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    learned = first.task.embedder.network.embedding.weight
    moment = first.optim.inner.state[learned]["exp_avg"].clone()
    state.next_phase(first.phase.steps_per_epoch)
    second = made.enter(1, first)
    assert torch.equal(second.optim.inner.state[learned]["exp_avg"], moment)
    assert all(".frontend." in f".{name}" for name in second.task.frozen())  # its constants
    state = second.train(state)
    assert (state.step, state.phase, state.phase_start) == (8, 1, 4)
    after = dict(second.task.named_parameters()) | dict(second.task.named_buffers())
    moved = {n: v for n, v in frozen.items() if v.is_floating_point() and ".frontend." not in n}
    assert not any(torch.equal(after[name], value) for name, value in moved.items())


def test_a_run_of_phases_counts_on_and_says_its_plan(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "glottis"):
        result = train_recipe(recipe(tree(tones, HEAD_ONLY, EVERYTHING)), tmp_path / "run")
    assert result["steps"] == 8
    lines = [line for line in read_metrics(tmp_path / "run") if "train/loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert [line["phase"] for line in lines] == [0] * 4 + [1] * 4
    epochs = [line["epoch"] for line in lines]
    assert epochs == sorted(epochs)
    assert lines[-1]["train/rate_network_0"] == pytest.approx(1e-4)
    plan = [line for line in caplog.messages if line.startswith("phase 1 of 2, 'head only'")]
    assert "4 steps of 3 per epoch, batch 8" in plan[0]
    assert " (0." in plan[0] or " (1." in plan[0]  # the share of the network that learns
    assert any(
        "phase 2 of 2, 'everything'" in line and "(100.0 %)" in line for line in caplog.messages
    )


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_a_run_that_is_resumed_in_any_phase_ends_with_the_same_bits(
    stop: int, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = [HEAD_ONLY, {**EVERYTHING, "batch": {"size": 6}, "data": {"crop_seconds": 0.3}}]
    made = recipe(tree(tones, *phases, checkpoint__keep=9))
    train_recipe(made, tmp_path / "whole")
    train_recipe(made, tmp_path / "cut")
    checkpoint = tmp_path / "cut" / "checkpoints" / f"step-{stop:08d}"
    train_recipe(made, tmp_path / "cut", resume=True, checkpoint=checkpoint)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    whole, cut = (read_metrics(tmp_path / name) for name in ("whole", "cut"))
    assert [line.get("train/loss") for line in whole] == [line.get("train/loss") for line in cut]


def test_a_phase_of_another_batch_loss_and_crop(tones: Path, tmp_path: Path) -> None:
    first = {"name": "flat", "train": {"steps": 2}}
    second = {
        **{"name": "grouped", "train": {"steps": 2}, "data": {"crop_seconds": 0.6}},
        **{"batch": {"speakers": 3, "utterances": 2}, "loss": {"name": "angular_prototypical"}},
    }
    made = outcome(tones, tmp_path / "a", first, second)
    state = made.trainer.train(State())
    state.next_phase(made.trainer.phase.steps_per_epoch)
    trainer = made.enter(1, made.trainer)
    batch = next(trainer.loader.batches(0, 1))
    assert batch.wave.shape == (6, 9600)
    assert batch.group == 2
    trainer.train(state)
    wider = {"name": "margin 0.3", "train": {"steps": 2}, "loss": {"margin": 0.3, "scale": 20.0}}
    made = outcome(tones, tmp_path / "b", first, wider)
    made.trainer.train(State())
    centres = made.trainer.task.head.centres.clone()
    head = made.enter(1, made.trainer).task.head
    assert torch.equal(head.centres, centres)  # the speakers are the same
    assert (head.margin, head.scale) == (0.3, 20.0)


def test_a_later_phase_is_checked_with_the_loss_it_will_have(tones: Path, tmp_path: Path) -> None:
    """Of the phase before, not of the first one: its parameters and its margin are others."""
    first = {"name": "softmax", "train": {"steps": 1}, "loss": {"name": "softmax"}}
    margin: dict[str, Any] = {"train": {"steps": 1}, "loss": {"name": "aam_softmax"}}
    last = {
        **{"name": "ramp", **margin, "margin": {"start": 0.1, "end": 0.2, "epochs": 1}},
        **{"optim": {"part_rates": {"head.centres": 0.5}}},
    }
    made = outcome(tones, tmp_path / "run", first, {"name": "margin", **margin}, last)
    state, trainer = State(), made.trainer
    for number in range(3):
        trainer = trainer if number == 0 else made.enter(number, trainer)
        state = trainer.train(state)
        state.next_phase(trainer.phase.steps_per_epoch)
    assert made.stages.prepared[2].head is made.stages.prepared[1].head is trainer.task.head
    assert trainer.task.head.margin == pytest.approx(0.1)


def test_the_order_of_the_data_is_another_one_in_every_phase(tones: Path, tmp_path: Path) -> None:
    made = outcome(tones, tmp_path / "run", *({**EVERYTHING, "name": str(i)} for i in range(2)))
    first, second = (next(p.loader.batches(0, 1)) for p in made.stages.prepared)
    assert first.rows.tolist() != second.rows.tolist()


def test_the_margin_and_the_strength_of_augmentation_follow_their_ramps(
    tones: Path, tmp_path: Path
) -> None:
    ramps = {
        **{"name": "ramp", "margin": {"start": 0.0, "end": 0.3, "epochs": 1.0}},
        **{"strength": {"start": 0.0, "end": 1.0, "epochs": 2.0}, "train": {"epochs": 4}},
    }
    changes = {"augment": [{"name": "gain", "gain_db": [-6.0, 6.0], "probability": 1.0}]}
    made = outcome(tones, tmp_path / "run", ramps, **changes)
    made.trainer.train(State())
    margins = [
        line["train/margin"] for line in read_metrics(tmp_path / "run") if "train/margin" in line
    ]
    assert margins[:5] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.3])
    lines = read_metrics(tmp_path / "run")
    strengths = [line["train/strength"] for line in lines if "train/strength" in line]
    assert strengths[:7] == pytest.approx([0.0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0])
    drawn = [
        sum(params[0] is not None for params in batch.params)
        for batch in made.trainer.loader.batches(0, 12)
    ]
    assert drawn[0] == 0
    assert 0 < sum(drawn[1:6]) < 5 * 8
    assert drawn[6:] == [8] * 6


def test_a_ramp_is_linear_or_nearly_there_early() -> None:
    line = Ramp(start=1.0, end=0.0, epochs=2.0)
    assert [line.value(step, 10) for step in (0, 5, 20, 99)] == [1.0, 0.75, 0.0, 0.0]
    curve = Ramp(start=0.0, end=1.0, epochs=2.0, shape="exponential")
    assert [curve.value(step, 10) for step in (0, 20, 30)] == [0.0, 1.0, 1.0]
    assert curve.value(4, 10) == pytest.approx((1 - 0.001**0.2) / 0.999)


def test_a_phase_ends_when_nothing_gets_better(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    still = {**HEAD_ONLY, "optim": {"rate": 1e-12}, "until_plateau": 2, "train": {"steps": 90}}
    last = {**EVERYTHING, "raises_rate": True}
    with caplog.at_level(logging.INFO, "glottis"):
        result = train_recipe(recipe(tree(tones, still, last)), tmp_path / "run")
    assert result["steps"] == 6 + 4  # the best at 2, then 4 and 6; then the second phase
    assert any("the phase 'head only' ends at step 6 of 90" in line for line in caplog.messages)


def test_a_frozen_tensor_that_moves_stops_the_run(tones: Path, tmp_path: Path) -> None:
    made = outcome(tones, tmp_path / "run", HEAD_ONLY).trainer
    network = made.task.embedder.network

    def disturb(*_: Any) -> None:
        if network.training:
            network.stem.weight.data += 1e-3

    network.embedding.register_forward_hook(disturb)
    with pytest.raises(TrainingStopped, match=r"O2.*1 frozen tensors have changed.*stem\.weight"):
        made.train(State())


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"optim": {"rate": 2e-3}}, r"O16.*raises the learning rate of network\.embedding"),
        ({"parts": ["network.nothing"]}, "no parameter is called 'network.nothing'"),
        ({"data": {"root": "/elsewhere"}}, r"changes data\.root"),
        ({"evaluate": {"trials": "other.txt"}}, r"changes evaluate\.trials"),
        ({"optim": {"rat": 1.0}}, r"phase 'second'[^$]*optim\.rat"),
        ({"name": "head only"}, "two phases have one name"),
        ({"strength": {"start": 0, "end": 1, "epochs": 1}}, "nothing is augmented"),
        (
            {
                **{"loss": {"name": "softmax"}},
                "margin": {"start": 0, "end": 1, "epochs": 1},
            },
            "its loss has no margin",
        ),
        ({"batch": {"utterances": 2}}, "both 'speakers' and 'utterances'"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(
    second: dict[str, Any], said: str, tones: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        outcome(tones, tmp_path / "run", HEAD_ONLY, {"name": "second", **second})
    assert not (tmp_path / "run").exists()


def test_a_section_of_a_phase_takes_the_other_kind_of_length_away(tones: Path) -> None:
    epochs = {"name": "long", "train": {"epochs": 2}, "evaluate": {"every_epochs": 1}}
    (resolved,) = resolve_phases(recipe(tree(tones, epochs)))
    assert (resolved.recipe.train.epochs, resolved.recipe.train.steps) == (2, None)
    assert resolved.recipe.evaluate.every_steps is None
    assert resolved.recipe.optim.rate == 1e-3  # what the phase says nothing of


def test_the_plan_of_report_002_is_that_of_its_model(tones: Path, tmp_path: Path) -> None:
    """Projection and its norm learn first: 264,448 of 5,016,305 parameters, 5.3 %."""
    words = [
        *("init=null", "new_parts=[]", "model.name=redimnet_b2_mrl", "model.embedding_size=256"),
        *("model.projection_dropout=0.1", "model.aggregation_dropout=0.1", f"data.root={tones}"),
        *(f"data.manifest={tones / 'manifest.csv'}", "data.train.label=bonafide", "data.workers=0"),
        *(f"evaluate.trials={tones / 'trials_dev.txt'}", "batch.size=4"),
    ]
    path = Path(__file__).resolve().parents[2] / "recipes" / "redimnet_b2_matryoshka.yaml"
    made = assemble(load_recipe(path, words), tmp_path / "run")
    first, second = map(made.stages.plan, range(2))
    assert "264,448 of 5,016,305 parameters of the network learn (5.3 %)" in first
    assert "rates: network 1.00e-04, loss 1.00e-04" in first
    assert "5,016,304 of 5,016,305" in second
    assert "network 1.00e-05 to 0.00e+00, network 1.00e-04 to 0.00e+00" in second
    learns = [name for name, p in made.trainer.task.named_parameters() if p.requires_grad]
    assert "head.heads.256.centres" in learns  # which no optimiser of the report had
