"""Checkpoints: a full disk and a step back leave every link and every saved file usable."""

from __future__ import annotations

import errno
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.errors import TrainingStopped
from glottis.report.history import read_metrics
from glottis.train import train_recipe
from glottis.train.checkpoint import CheckpointFolder, load_state
from glottis.train.run import Run
from helpers.tones import recipe, speaker_tree

FULL = Path("/dev/full")  # a file that is always on a full disk
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def tree(tones: Path, **changes: Any) -> dict[str, Any]:
    return speaker_tree(
        tones,
        **{"train__steps": 3, "evaluate": {}, "checkpoint__every_steps": 1, **changes},
    )


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def weights(run: Path) -> bytes:
    return (run / "checkpoints" / "latest" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("file", ["model.safetensors", "state.pt"])
def test_a_full_disk_stops_the_run_and_what_was_saved_stays(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    train_recipe(recipe(tree(tones)), tmp_path / "whole")
    run = tmp_path / "run"
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if file in self.name and "step-00000002" in str(self):
            write(self, bytes(data)[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(TrainingStopped, match=r"step 2 cannot be written.*No space") as caught:
            train_recipe(recipe(tree(tones)), run)
    assert "--resume" in caught.value.fix
    assert names(run) == ["latest", "step-00000001"]  # nothing half-written takes up space
    assert load_state(run / "checkpoints" / "latest", torch.device("cpu"))["step"] == 1
    assert "stopped: [F9]" in (run / "train.log").read_text()
    assert train_recipe(recipe(tree(tones)), run, resume=True)["steps"] == 3
    assert weights(run) == weights(tmp_path / "whole")


@needs_full
def test_a_log_on_a_full_disk_stops_the_run_without_noise(
    tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "train.log").symlink_to(FULL)
    with pytest.raises(TrainingStopped, match=r"train\.log cannot be written: No space left"):
        train_recipe(recipe(tree(tones)), run)
    assert logging.getLogger("glottis").handlers == []
    assert "Traceback" not in capsys.readouterr().err  # of the logging module
    (run / "train.log").unlink()
    assert train_recipe(recipe(tree(tones)), run, resume=True)["steps"] == 3


@needs_full
def test_metrics_on_a_full_disk_stop_the_run(tones: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", recipe(tree(tones)), {})
    (tmp_path / "run" / "metrics.jsonl").symlink_to(FULL)
    with pytest.raises(TrainingStopped, match=r"metrics\.jsonl cannot be written: No space left"):
        run.log(1, {"train/loss": 1.0})


def test_only_the_newest_are_kept_and_the_best(tones: Path, tmp_path: Path) -> None:
    changes = {"train__steps": 4, "checkpoint__keep": 2}
    train_recipe(recipe(tree(tones, **changes)), tmp_path / "run")
    assert names(tmp_path / "run") == ["latest", "step-00000003", "step-00000004"]
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints", keep=1)
    folder.point_best(3)
    folder._prune(folder.folder / "step-00000004")
    assert names(tmp_path / "run") == ["best", "latest", "step-00000003", "step-00000004"]


def test_a_run_can_go_back_to_an_earlier_checkpoint(tones: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trials = {"trials": str(tones / "trials_dev.txt"), "every_steps": 1}
    changes = {"train__steps": 4, "evaluate": trials, "checkpoint__keep": 4}
    whole = train_recipe(recipe(tree(tones, **changes)), run)
    bytes_of_whole = weights(run)
    (run / "checkpoints" / "best").unlink()
    (run / "checkpoints" / "best").symlink_to("step-00000004")  # of what is being undone
    changes["checkpoint__keep"] = 1
    original = CheckpointFolder.save
    seen = []

    def watched(self: CheckpointFolder, *words: Any, **options: Any) -> Path:
        if not seen:
            assert (self.folder / "best").resolve().name == "step-00000001"
        path = original(self, *words, **options)
        latest = self.latest()
        seen.append((latest == path, (self.folder / "latest").exists()))
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointFolder, "save", watched)
        first = run / "checkpoints" / "step-00000001"
        again = train_recipe(recipe(tree(tones, **changes)), run, resume=True, checkpoint=first)
    assert seen == [(True, True)] * 3
    assert weights(run) == bytes_of_whole
    assert again["best_step"] == whole["best_step"]
    assert [r["step"] for r in read_metrics(run) if "dev/eer" in r] == [1, 2, 3, 4]


def test_a_best_that_is_gone_is_not_claimed(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trials = {"trials": str(tones / "trials_dev.txt"), "every_steps": 1}
    changes = {"train__steps": 2, "evaluate": trials}
    train_recipe(recipe(tree(tones, **changes)), tmp_path / "run")
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "run" / "checkpoints" / "step-00000001", moved)
    with caplog.at_level(logging.WARNING):
        result = train_recipe(
            recipe(tree(tones, **changes)), tmp_path / "new", resume=True, checkpoint=moved
        )
    assert "the best checkpoint so far (step 1) is not in" in caplog.text
    assert result["best_step"] == 2
    assert result["checkpoint"].endswith("best")
    assert (tmp_path / "new" / "checkpoints" / "best").resolve().name == "step-00000002"
