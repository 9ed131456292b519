"""``glottis train`` and ``glottis runs``: what they say, refuse and leave behind."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from glottis.errors import TrainingStopped
from helpers.cli import files_below, glottis, succeeds


def train(bench: Any, out: Path, *words: object) -> Any:
    return glottis("train", bench.speaker_recipe, "--out", out, *words)


def weights(run: Path) -> bytes:
    return (run / "checkpoints/latest/model.safetensors").read_bytes()


def test_training_says_where_the_result_is(bench: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    text = train(bench, out).out.splitlines()
    assert text[0].startswith(f"finished: {out} after 2 steps in ")
    assert text[1].startswith("best: step 2, development EER ")
    assert text[1].endswith(" %")
    assert text[-1] == f"checkpoint: {out / 'checkpoints/best'}"
    assert weights(out) == weights(bench.speaker)  # the same recipe gives the same bytes


def test_training_in_json(bench: Any, tmp_path: Path) -> None:
    result = train(bench, tmp_path / "run", "--json").json
    assert result["steps"] == 2
    assert 0 <= result["best_development"] <= 1
    assert result == json.loads((tmp_path / "run/finished.json").read_text())


def test_the_run_folder_is_named_after_the_recipe(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    succeeds("train", bench.spoof_recipe)
    assert (tmp_path / "runs/spoof/finished.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.step=3"], ["train.step: unknown key; did you mean 'steps'?"]),
        (["trian.steps=3"], ["trian: unknown key; did you mean 'train'?"]),
        (["optim.rat=3"], ["optim.rat: unknown key; did you mean 'rate'?"]),
        (["optim.name=adan"], ["optim.name: there is no 'adan'; did you mean 'adam'?"]),
        (["schedule.warmup=3"], ["schedule.name: missing; known: constant, cosine"]),
        (["augment=[{name: gain, gain: 3}]"], ["augment.0.gain: unknown", "'gain_db'?"]),
        (["train.steps=many"], ["train.steps: must be a valid integer, not the text 'many'\n"]),
        (["train.steps='3'"], ["not the text '3'; remove the quotes"]),
        (["model.name=resnet"], ["there is no model called 'resnet'", "resnetse34l"]),
        (["train.steps=many", "batch.size=0"], ["2 problems", "train.steps", "batch.size"]),
        (["optim"], ["'optim' is not an override", "key=value"]),
        (["data.manifest=/no/such.csv"], ["there is no manifest /no/such.csv"]),
        (["data.root=/no/such"], ["24 files are missing", "data.root"]),
        (["data.store=/no/such"], ["/no/such", "glottis pack"]),
        (["data.train.split=trian"], ["chooses none of the 80 rows", "train"]),
        (["evaluate.trials=/no/such.txt"], ["cannot read the trial list /no/such.txt"]),
        (["init=/no/such"], ["there is no file /no/such"]),
        (["runtime.device=tpu"], ["'tpu' is not a device"]),
        (["task=spoof"], ["evaluate.trials does not belong to the task 'spoof'"]),
        (["loss.name=focal"], ["the loss 'focal' is for the task 'spoof'"]),
        (["loss.name=angular_prototypical"], ["needs grouped batches", "batch.speakers"]),
        (["--resume", "/no/such"], ["/no/such is not a checkpoint to resume from"]),
    ],
    ids=lambda value: " ".join(value) if value and "=" in value[0] else None,
)
def test_a_wrong_request_is_explained_and_leaves_nothing(
    bench: Any, tmp_path: Path, words: list[str], said: list[str]
) -> None:
    before = files_below(bench.corpus)
    outcome = train(bench, tmp_path / "run", *words)
    assert outcome.code == 2
    assert outcome.out == ""
    for text in said:
        assert text in outcome.err
    assert not (tmp_path / "run").exists()
    assert files_below(bench.corpus) == before


@pytest.mark.parametrize("name", ["missing.yaml", "corpus", "corpus/s00_0_bonafide.wav"])
def test_what_is_not_a_recipe_is_refused(bench: Any, tmp_path: Path, name: str) -> None:
    outcome = glottis("train", bench.root / name, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert str(bench.root / name) in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_file_cannot_be_the_run_folder(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    outcome = train(bench, tmp_path / "file")
    assert outcome.code == 2
    assert "is a file; a folder is needed" in outcome.err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_finished_run_is_not_overwritten(bench: Any) -> None:
    before = files_below(bench.speaker)
    again = train(bench, bench.speaker)
    other = train(bench, bench.speaker, "optim.rate=0.5")
    assert (again.code, other.code) == (2, 2)
    assert "--resume" in again.err
    assert "optim.rate: 0.001 -> 0.5" in other.err
    assert files_below(bench.speaker) == before


def test_too_many_broken_files_fail_the_run(bench: Any, tmp_path: Path) -> None:
    corpus = shutil.copytree(bench.corpus, tmp_path / "corpus")
    for clip in corpus.glob("s0[0-5]_0_bonafide.wav"):  # one of four clips of every speaker
        clip.write_bytes(b"RIFF, but nothing else")
    outcome = train(bench, tmp_path / "run", f"data.root={corpus}", "data.broken_budget=2")
    assert outcome.code == TrainingStopped.exit_code == 1
    assert outcome.out == ""
    assert "broken" in outcome.err
    assert len((tmp_path / "run/quarantine.jsonl").read_text().splitlines()) >= 2
    assert not (tmp_path / "run/finished.json").exists()
    (row,) = glottis("runs", tmp_path, "--json").json
    assert row["state"] == "failed"


@pytest.fixture
def interrupted(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was interrupted by Ctrl-C in its second step."""
    from glottis.train import engine

    real, calls = engine.step, []

    def step(*words: Any, **options: Any) -> Any:
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*words, **options)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "step", step)
        outcome = train(bench, tmp_path / "run")
    assert outcome.code == 130
    assert outcome.out == ""
    assert "glottis: interrupted; what was saved is intact" in outcome.err
    return tmp_path / "run"


def test_an_interrupted_run_continues_bit_for_bit(bench: Any, interrupted: Path) -> None:
    checkpoints = {p.name for p in (interrupted / "checkpoints").iterdir()}
    assert checkpoints == {"step-00000001", "latest"}
    (row,) = glottis("runs", interrupted, "--json").json
    assert (row["state"], row["step"]) == ("stopped", 1)
    assert train(bench, interrupted, "--resume").code == 0
    assert weights(interrupted) == weights(bench.speaker)


@pytest.mark.parametrize("words", [["--resume"], ["--resume=newest"]])
def test_resume_needs_no_value_wherever_it_stands(
    bench: Any, interrupted: Path, words: list[str]
) -> None:
    outcome = glottis("train", *words, bench.speaker_recipe, "--out", interrupted, "--json")
    assert outcome.code == 0
    assert outcome.json["steps"] == 2


def test_resume_takes_a_checkpoint_or_a_run(bench: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for source in ("checkpoints/step-00000001", ""):
        shutil.copytree(bench.speaker, out, symlinks=True)
        assert train(bench, out, "--resume", out / source).code == 0
        assert weights(out) == weights(bench.speaker)
        shutil.rmtree(out)


def test_a_training_state_of_a_newer_version_is_refused(bench: Any, tmp_path: Path) -> None:
    import torch

    out = tmp_path / "run"
    shutil.copytree(bench.speaker, out, symlinks=True)
    path = out / "checkpoints/step-00000002/state.pt"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "format": 99, "glottis": "9.9"}, path)
    outcome = train(bench, out, "--resume")
    assert outcome.code == 2
    assert "was written by Glottis 9.9" in outcome.err


# ---------------------------------------------------------------- runs


def test_runs_are_listed_with_their_state(bench: Any) -> None:
    text = succeeds("runs", bench.root / "runs").out.splitlines()
    assert text[0].split("  ")[0] == "folder"
    assert [line.split()[0] for line in text[1:]] == [str(bench.speaker), str(bench.spoof)]
    assert all(line.endswith("finished") for line in text[1:])


def test_runs_in_json_hold_fractions_and_numbers(bench: Any) -> None:
    rows = succeeds("runs", bench.root / "runs", "--json").json
    assert [row["task"] for row in rows] == ["speaker", "spoof"]
    assert [row["model"] for row in rows] == ["resnetse34l", "aasist_l"]
    for row in rows:
        assert row["step"] == 2
        assert 0 <= row["dev_eer"] <= 1
        assert row["loss"] > 0


def test_a_run_is_running_until_its_log_falls_silent(bench: Any, tmp_path: Path) -> None:
    run = shutil.copytree(bench.speaker, tmp_path / "run", symlinks=True)
    (run / "finished.json").unlink()
    states = []
    for age in (0, 3600):
        then = time.time() - age
        os.utime(run / "train.log", (then, then))
        states += [row["state"] for row in succeeds("runs", tmp_path, "--json").json]
    assert states == ["running", "stopped"]


def test_without_runs_the_table_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "glottis train RECIPE" in succeeds("runs").out
    assert succeeds("runs", "--json").json == []
    assert succeeds("runs", tmp_path, "--json").json == []
    outcome = glottis("runs", "nowhere")
    assert (outcome.code, outcome.out) == (2, "")
    assert "there is no folder nowhere" in outcome.err


def test_a_file_that_describes_no_run_is_named_and_left_out(bench: Any, tmp_path: Path) -> None:
    shutil.copytree(bench.speaker, tmp_path / "good", symlinks=True)
    for name, text in (("cut", '{"run_'), ("other", '{"run": 1}'), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    outcome = succeeds("runs", tmp_path, "--json")
    assert [row["folder"] for row in outcome.json] == [str(tmp_path / "good")]
    assert outcome.err.count("does not describe a run") == 3


def test_watching_shows_the_table_again_until_it_is_interrupted(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps = iter([None, None])

    def sleep(_: float) -> None:
        if next(naps, "enough") == "enough":
            raise KeyboardInterrupt

    monkeypatch.setattr("glottis.cli.runs.time.sleep", sleep)
    outcome = glottis("runs", bench.root / "runs", "--watch")
    assert outcome.code == 130
    assert outcome.out.count("finished") == 6


def test_of_several_processes_one_speaks(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result = {"steps": 2, "seconds": 1.0, "best_step": None, "quarantined": 1}
    result |= {"average": None, "checkpoint": "x"}
    monkeypatch.setattr("glottis.train.train_recipe", lambda *_, **__: result)
    words = ("train", bench.speaker_recipe, "--out", "runs/x")
    assert "1 broken files were left out" in succeeds(*words).out
    monkeypatch.setenv("RANK", "1")
    for more in ((), ("--json",)):
        assert succeeds(*words, *more).out == ""
