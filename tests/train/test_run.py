"""The run folder: metrics are the truth, the log says everything, the line shows where we are."""

from __future__ import annotations

import io
import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from glottis.errors import TrainingStopped
from glottis.report.history import read_metrics
from glottis.train import run as run_module
from glottis.train import train_recipe
from glottis.train.guards import ChanceGuard, DiskGuard, FiniteGuard, NonFiniteConfig, Watch
from glottis.train.progress import Progress, clock
from glottis.train.run import Run
from helpers.tones import recipe, speaker_tree, write_corpus


class Head:
    batch = "flat"
    input = "embedding"

    def chance_loss(self, num_classes: int) -> float:
        return 10.0

    def collapse_loss(self, num_classes: int) -> float:
        return 5.0


def watch(folder: Path, size: int = 1) -> Watch:
    return Watch(folder, SimpleNamespace(head=Head()), 100, size)  # type: ignore[arg-type]


def test_a_run_folder_holds_identity_recipe_metrics_and_log(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "tones")
    out = tmp_path / "run"
    result = train_recipe(recipe(speaker_tree(root, train__steps=3)), out)
    run = json.loads((out / "run.json").read_text())
    assert run["run_id"] == result["run_id"]
    assert set(run["identity"]["data"]) == {"manifest", "selection"}
    assert all(len(digest) == 64 for digest in run["identity"]["data"].values())
    assert run["glottis"]
    assert run["torch"]
    assert "task: speaker" in (out / "recipe.yaml").read_text()
    log = (out / "train.log").read_text()
    assert "24 training clips, 6 speakers" in log  # said before the folder existed
    assert "finished after 3 steps" in log
    records = read_metrics(out)
    assert {"train/loss", "train/grad_norm", "train/rate", "train/clips_per_s"} <= set(records[0])
    assert records[-1]["dev/eer"] >= 0
    card = json.loads((out / "checkpoints" / "best" / "card.json").read_text())
    assert card["glottis"]
    assert card["extra"]["run_id"] == result["run_id"]
    assert card["extra"]["development"]["threshold"] == pytest.approx(records[-1]["dev/threshold"])
    summary = card["extra"]["data"]["train"]
    assert "CC0-1.0" in json.dumps(summary)  # licence, gender, language, channel, source travel


def test_metrics_of_a_killed_run_lose_only_the_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 3, "a"')
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2]
    assert read_metrics(tmp_path / "none") == []


def test_resuming_forgets_the_lines_that_will_be_written_again(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "tones")
    tree = recipe(speaker_tree(root))
    run = Run(tmp_path / "run", tree, {})
    for step in (1, 2, 3):
        run.log(step, {"x": float("nan") if step == 2 else 1.0})
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "x"')
    run.forget_after(2)
    assert read_metrics(tmp_path / "run") == [{"step": 1, "x": 1.0}, {"step": 2, "x": None}]


def test_a_resume_keeps_the_first_start_and_is_written_down(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    tree = recipe(speaker_tree(tones, train__steps=2, evaluate={}, checkpoint__every_steps=1))
    monkeypatch.setattr(run_module, "_now", lambda: "first")
    monkeypatch.setattr(run_module, "code_hash", lambda: "old code")
    result = train_recipe(tree, out)
    first = json.loads((out / "run.json").read_text())
    assert (first["started"], first["resumes"]) == ("first", [])
    monkeypatch.setattr(run_module, "_now", lambda: "later")
    monkeypatch.setattr(run_module, "code_hash", lambda: "new code")
    shutil.rmtree(out / "checkpoints" / "step-00000002")
    (out / "checkpoints" / "latest").unlink()
    again = train_recipe(tree, out, resume=True)
    now = json.loads((out / "run.json").read_text())
    assert {k: v for k, v in now.items() if k != "resumes"} == {
        k: v for k, v in first.items() if k != "resumes"
    }
    (entry,) = now["resumes"]
    assert (entry["resumed"], entry["step"], entry["code"]) == ("later", 1, "new code")
    assert entry["checkpoint"].endswith("step-00000001")
    assert again["run_id"] == result["run_id"] == now["run_id"]
    assert again["seconds"] > 0
    card = json.loads((out / "checkpoints" / "latest" / "card.json").read_text())
    assert card["extra"]["resumes"] == now["resumes"]  # the model says that its code changed


def test_a_run_that_had_saved_nothing_is_one_of_the_code_that_runs_it(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = recipe(speaker_tree(tones))
    monkeypatch.setattr(run_module, "code_hash", lambda: "old code")
    old = Run(tmp_path / "run", tree, {})
    monkeypatch.setattr(run_module, "code_hash", lambda: "new code")
    new = Run(tmp_path / "run", tree, {}, resume=True)
    assert new.run_id != old.run_id
    assert new.card["started"] == old.card["started"]
    assert new.card["identity"]["code"] == "new code"


VALUES = {"loss": 1.5, "grad_norm": 2.0, "rate": 1e-3, "clips_per_s": 64.0, "data_wait": 0.05}


def test_the_live_line_shows_where_the_run_is() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress(0, 200, 50, stream)
    progress.update(75, VALUES)
    line = stream.getvalue()
    for part in ("epoch 2/4", "step 75/200", "38 %", "eta", "64 clips/s", "loss 1.5000"):
        assert part in line
    for part in ("grad 2.00", "rate 1.00e-03", "data 5 %"):
        assert part in line
    assert "\n" not in line
    progress.close()
    assert stream.getvalue().endswith("\n")


def test_without_a_terminal_lines_are_plain_and_rare(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    progress = Progress(0, 200, 50, stream)
    with caplog.at_level(logging.INFO):
        for step in range(1, 101):
            progress.update(step, VALUES)
        progress.update(200, VALUES)
    assert stream.getvalue() == ""
    assert len(caplog.messages) == 2  # the first and the last
    assert clock(3723) == "1:02:03"
    assert clock(65) == "01:05"


def test_the_finite_guard_counts_the_last_thousand_steps_only(tmp_path: Path) -> None:
    guard = FiniteGuard(budget=2, config=NonFiniteConfig())
    guard.before_run(Watch(tmp_path, nn.Linear(2, 2), 100, 1))  # type: ignore[arg-type]
    assert guard.after_step(10, {"skipped_steps": 2}) is None
    assert guard.after_step(1500, {"skipped_steps": 2, "first_skipped": 1493}) is None
    verdict = guard.after_step(1600, {"skipped_steps": 1, "first_skipped": 1599})
    assert verdict is not None
    assert "3 of the last 1,000" in verdict.why
    assert (verdict.bad_step, verdict.since) == (1599, 1493)


def test_the_chance_guard_tells_stuck_from_collapsed_and_speaks_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for loss, accuracy, code in ((10.1, 0.5, "O7"), (5.1, 0.0, "O8"), (2.0, 0.9, "")):
        guard = ChanceGuard(steps_per_epoch=10)
        guard.before_run(watch(tmp_path))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            guard.after_step(20, {"loss": loss, "accuracy": accuracy})  # too early
            assert caplog.text == ""
            for step in (60, 80):
                guard.after_step(step, {"loss": loss, "accuracy": accuracy})
        assert caplog.text.count("[O") == (1 if code else 0)
        assert code in caplog.text


@pytest.mark.parametrize(
    ("loss", "word"), [(16.0, "far above"), (2.9, "far below"), (14.0, ""), (4.0, "")]
)
def test_the_first_loss_is_compared_with_chance(
    loss: float, word: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = ChanceGuard(steps_per_epoch=10)
    guard.before_run(watch(tmp_path))  # chance 10, collapse 5
    for _ in range(2):
        guard.after_step(1, {"loss": 7.0, "first_loss": loss})
    assert caplog.text.count("[O6]") == (1 if word else 0)
    assert word in caplog.text


def test_the_disk_guard_stops_before_the_disk_is_full(tmp_path: Path) -> None:
    DiskGuard().before_run(watch(tmp_path))
    with pytest.raises(TrainingStopped, match="three checkpoints"):
        DiskGuard().before_run(watch(tmp_path, size=10**15))
