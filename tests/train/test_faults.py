"""Faults from outside: signals, no memory, a dead worker.  Nothing is lost, and it is explained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.config import to_yaml
from glottis.errors import TrainingStopped
from glottis.report.history import read_metrics
from glottis.train import train_recipe
from glottis.train.checkpoint import load_state
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


def start(tones: Path, out: Path, **changes: Any) -> subprocess.Popen[str]:
    tree = speaker_tree(
        tones, train__steps=400, evaluate={}, checkpoint__every_steps=400, **changes
    )
    path = out.with_suffix(".yaml")
    path.write_text(to_yaml(recipe(tree)))
    words = [sys.executable, "-m", "glottis", "train", str(path), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def wait_for_steps(process: subprocess.Popen[str], out: Path, count: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if (out / "metrics.jsonl").exists() and len(read_metrics(out)) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"no steps were made: {process.communicate()[1]}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    number: signal.Signals, workers: int, tones: Path, tmp_path: Path
) -> None:
    """Of the whole process group, as a terminal and a scheduler send it: workers included."""
    out = tmp_path / "run"
    process = start(tones, out, data__workers=workers)
    wait_for_steps(process, out, 2)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    saved = load_state(out / "checkpoints" / "latest", torch.device("cpu"))["step"]
    assert f"stopped by {number.name} after step {saved}, which is saved" in said
    assert f"continue with --out {out} --resume" in said
    assert 0 < saved < 400


def test_what_was_saved_at_a_signal_continues_bit_for_bit(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = speaker_tree(tones, train__steps=5, evaluate={}, checkpoint__every_steps=5)
    made = recipe(tree)
    train_recipe(made, tmp_path / "whole")
    from glottis.train import engine

    real, calls = engine.step, []

    def interrupted(*words: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*words, **options)

    monkeypatch.setattr(engine, "step", interrupted)
    with pytest.raises(TrainingStopped, match="stopped by SIGTERM after step 3"):
        train_recipe(made, tmp_path / "cut")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train_recipe(made, tmp_path / "cut", resume=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


# ------------------------------------------------------------------------------ workers


def test_a_worker_that_is_killed_is_named_and_the_run_continues(
    tones: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(tones, out, data__workers=1, log__every_steps=1)
    wait_for_steps(process, out, 2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "a data worker died" in said
    assert "Traceback" not in said
