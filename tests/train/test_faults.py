"""A lack of memory: the step is made again in pieces.  (Other faults: tests/faults.)"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.errors import TrainingStopped
from glottis.train import train_recipe
from glottis.train.signals import Signals
from glottis.train.state import State
from glottis.train.step import out_of_memory
from helpers.tones import recipe, speaker_tree
from helpers.training import one_step, trainer


def weights(folder: Path) -> bytes:
    return (folder / "checkpoints" / "latest" / "model.safetensors").read_bytes()


# ------------------------------------------------------------------------------ memory


class Allocator:
    """Refuses a forward pass of more clips than fit, after it has moved the batch norms."""

    def __init__(self, network: torch.nn.Module, fits: int, error: Exception) -> None:
        self.fits, self.error, self.seen = fits, error, []
        network.register_forward_hook(self._after)

    def _after(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        self.seen.append(len(inputs[0]))
        if module.training and len(inputs[0]) > self.fits:
            raise self.error


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["device", "host", "python"])
def test_a_batch_that_does_not_fit_is_split_and_the_split_is_remembered(
    error: Exception, tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = trainer(tones, tmp_path)
    memory = Allocator(made.task.embedder.network, 2, error)
    one_step(made)
    assert memory.seen == [8, 4, 2, 2, 2, 2]
    assert "from now on in 4" in caplog.messages[-1]
    memory.seen.clear()
    one_step(made, 1)
    assert memory.seen == [2, 2, 2, 2]


def test_the_split_batch_gives_the_step_of_an_accumulated_one(tones: Path, tmp_path: Path) -> None:
    small = trainer(tones, tmp_path / "small")
    Allocator(small.task.embedder.network, 4, ERRORS[0])
    pieces = trainer(tones, tmp_path / "pieces", train__accumulation=2)
    for index in range(2):
        first, second = one_step(small, index), one_step(pieces, index)
        assert torch.equal(first["loss"], second["loss"])
    for (name, a), b in zip(
        small.task.state_dict().items(), pieces.task.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name  # batch-norm statistics of the failed attempt are gone


def test_one_clip_that_does_not_fit_stops_the_run(tones: Path, tmp_path: Path) -> None:
    made = trainer(tones, tmp_path)
    Allocator(made.task.embedder.network, 0, ERRORS[0])
    with pytest.raises(TrainingStopped, match="not enough memory for 1 clips at once"):
        made.train(State())


GROUPED = {"batch": {"speakers": 4, "utterances": 2}, "loss": {"name": "angular_prototypical"}}


def test_a_loss_that_compares_clips_is_not_computed_in_pieces(tones: Path, tmp_path: Path) -> None:
    """Two speakers at a time are another task; one at a time is none."""
    made = trainer(tones, tmp_path / "grouped", **GROUPED)
    Allocator(made.task.embedder.network, 4, ERRORS[0])
    with pytest.raises(TrainingStopped, match=r"compares the speakers[\s\S]*lower batch.speakers"):
        one_step(made)
    assert made.pieces.count == 1
    train_recipe(recipe(speaker_tree(tones, train__steps=1, evaluate={})), tmp_path / "teacher")
    teacher = {"teacher": str(tmp_path / "teacher"), "kind": "relational"}
    made = trainer(tones, tmp_path / "taught", distillation=teacher)
    Allocator(made.task.embedder.network, 4, ERRORS[0])
    with pytest.raises(TrainingStopped, match="relational compares the clips of a batch"):
        one_step(made)


def test_an_update_is_made_once_and_its_memory_is_there_before(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(tones, tmp_path)
    moments = [set(made.optim.inner.state[p]) for p in made.optim.parameters]
    assert moments == [{"step", "exp_avg", "exp_avg_sq"}] * len(moments)
    calls = []

    def update() -> None:
        calls.append(1)
        raise ERRORS[0]

    monkeypatch.setattr(made.optim.inner, "step", update)
    with pytest.raises(torch.OutOfMemoryError):
        one_step(made)
    assert len(calls) == 1


def test_memory_that_lacks_elsewhere_ends_the_run_calmly(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise ERRORS[0]

    monkeypatch.setattr("glottis.train.engine.Trainer._evaluate", full)
    with pytest.raises(TrainingStopped, match=r"not enough memory[\s\S]*evaluate.batch_seconds"):
        train_recipe(recipe(speaker_tree(tones, train__steps=1)), tmp_path / "run")


def test_a_resumed_run_remembers_what_fits(tones: Path, tmp_path: Path) -> None:
    made = trainer(tones, tmp_path, train__steps=2, checkpoint__every_steps=1)
    Allocator(made.task.embedder.network, 4, ERRORS[0])
    made.train(State())
    again = trainer(tones, tmp_path / "again", train__steps=2)
    again.restore(tmp_path / "run" / "checkpoints" / "latest")
    assert again.pieces.count == 2


def test_other_errors_are_not_taken_for_a_lack_of_memory(tones: Path, tmp_path: Path) -> None:
    made = trainer(tones, tmp_path)
    Allocator(made.task.embedder.network, 0, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        one_step(made)
    assert not out_of_memory(RuntimeError("a bug"))


# ------------------------------------------------------------------------------ signals


def test_signals_are_what_they_were_once_the_training_has_ended() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.asked(agreed=True) == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before
