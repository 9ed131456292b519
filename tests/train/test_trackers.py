"""Trackers are copies: they may fail in any way, and the run and its metrics do not care."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from glottis.errors import MissingExtra
from glottis.report.history import read_metrics
from glottis.train import trackers as trackers_module
from glottis.train import train_recipe
from glottis.train.trackers import TensorBoardTracker, Trackers, WandbOptions, WandbTracker
from helpers.tones import recipe, speaker_tree, write_corpus


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []
        self.closed = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.seen.append((step, dict(values)))

    def close(self) -> None:
        self.closed = True


class Sick(Recorder):
    def log(self, step: int, values: Mapping[str, float]) -> None:
        raise RuntimeError("the service is down")


def test_a_failing_tracker_is_switched_off_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, sick = Recorder(), Sick()
    trackers = Trackers({"sick": lambda: sick, "good": lambda: good})
    with caplog.at_level(logging.WARNING):
        trackers.log(1, {"loss": 2.0, "text": "no number"})
        trackers.log(2, {"loss": 1.0})
    trackers.close()
    assert good.seen == [(1, {"loss": 2.0}), (2, {"loss": 1.0})]
    assert good.closed
    assert caplog.text.count("switched off") == 1


def test_a_tracker_that_cannot_start_is_only_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        raise OSError("no route to host")

    with caplog.at_level(logging.WARNING):
        Trackers({"broken": broken}).log(1, {"loss": 1.0})
    assert "no route to host" in caplog.text


def test_a_missing_extra_says_how_to_install_it() -> None:
    def absent() -> Any:
        raise MissingExtra("wandb", "track", "log.wandb_project")

    with pytest.raises(MissingExtra, match=r"pip install 'glottis\[track\]'"):
        Trackers({"absent": absent})


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = TensorBoardTracker(tmp_path)
    tracker.log(3, {"train/loss": 0.5})
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (event,) = events.Scalars("train/loss")
    assert (event.step, event.value) == (3, 0.5)


def test_weights_and_biases_falls_back_to_offline_and_keeps_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    class Module:
        class Settings:
            def __init__(self, **options: Any) -> None:
                self.options = options

        @staticmethod
        def init(**options: Any) -> Recorder:
            seen.update(options)
            return Recorder()

    import sys

    monkeypatch.setitem(sys.modules, "wandb", Module())
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("WANDB_API_KEY=secret-key\n")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(trackers_module, "_reachable", lambda: False)
    WandbTracker(tmp_path, WandbOptions("voices", ("a", "b"), "auto"), "run1", {"seed": 1})
    import os

    assert seen["mode"] == "offline"
    assert seen["project"] == "voices"
    assert seen["tags"] == ["a", "b"]
    assert os.environ.pop("WANDB_API_KEY") == "secret-key"  # read from .env ...
    assert "secret-key" not in repr(seen)  # ... and handed to nobody
    monkeypatch.setattr(trackers_module, "_reachable", lambda: True)
    monkeypatch.setenv("WANDB_API_KEY", "secret-key")
    WandbTracker(tmp_path, WandbOptions("voices", (), "auto"), "run1", {})
    assert seen["mode"] == "online"
    WandbTracker(tmp_path, WandbOptions("voices", (), "offline"), "run1", {})
    assert seen["mode"] == "offline"


def test_a_run_with_a_dying_tracker_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers_module, "TensorBoardTracker", lambda folder: Sick())
    root = write_corpus(tmp_path / "tones")
    tree = speaker_tree(root, train__steps=2, evaluate={}, log={"tensorboard": True})
    result = train_recipe(recipe(tree), tmp_path / "run")
    assert result["steps"] == 2
    assert read_metrics(tmp_path / "run")[-1]["step"] == 2
    assert "TensorBoard failed" in (tmp_path / "run" / "train.log").read_text()
