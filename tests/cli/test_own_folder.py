"""Train on my own folder, as the README says it: prepare, pack, train, evaluate, verify."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from glottis.audio import PackedStore
from glottis.data import EvaluationTrials, Manifest
from helpers.cli import files_below, glottis, succeeds

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "own_speaker.yaml"
SMALL = ("train.epochs=null", "train.steps=2", "evaluate.every_epochs=1", "batch.size=8")
QUICK = (*SMALL, "data.crop_seconds=0.5", "data.workers=0", "model.embedding_size=16")


@dataclass(frozen=True)
class Prepared:
    voices: Path
    data: Path
    said: str

    @property
    def manifest(self) -> Path:
        return self.data / "manifest.parquet"

    @property
    def store(self) -> Path:
        return self.data / "store"


@pytest.fixture(scope="module")
def prepared(voices: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """`glottis prepare` and `glottis pack` of the folder."""
    data = tmp_path_factory.mktemp("data") / "voices"
    made = succeeds("prepare", "folder", voices, data, "--dev", "0.32", "--test", "0.32")
    succeeds("pack", data / "manifest.parquet", data / "store", "--root", voices, "--workers", 0)
    return Prepared(voices, data, made.out)


@pytest.fixture(scope="module")
def run(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`glottis train` of the recipe for one's own voices, two steps."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    succeeds(
        *("train", RECIPE, f"data.root={prepared.voices}", f"data.manifest={prepared.manifest}"),
        *(f"data.store={prepared.store}", f"evaluate.trials={prepared.data / 'trials_dev.txt'}"),
        *(*QUICK, "--out", out),
    )
    return out


def test_speakers_of_training_selection_and_report_are_different_people(prepared: Prepared) -> None:
    table = Manifest.read(prepared.manifest)
    splits = {name: set(table.select(split=name).speakers()) for name in ("train", "dev", "test")}
    assert [len(splits[name]) for name in ("train", "dev", "test")] == [6, 5, 5]
    assert len(set.union(*splits.values())) == 16
    for name in ("dev", "test"):
        trials = EvaluationTrials.read(prepared.data / f"trials_{name}.txt")
        assert {key.split("/")[0] for key in map(str, trials.keys)} == splits[name]
        assert 0 < trials.target.sum() < len(trials)


def test_prepare_says_what_it_made_and_what_comes_next(prepared: Prepared) -> None:
    lines = prepared.said.splitlines()
    assert lines[0] == f"64 clips of 16 speakers -> {prepared.manifest}"
    assert f"list trials_dev: {prepared.data / 'trials_dev.txt'}" in lines
    assert lines[-1] == (  # quoted for the shell: the folder has a space in its name
        f"next: glottis pack {prepared.manifest} {prepared.store} --root '{prepared.voices}'"
    )


def test_prepare_in_json_and_again_gives_the_same(prepared: Prepared, tmp_path: Path) -> None:
    words = (
        "prepare",
        "folder",
        prepared.voices,
        tmp_path / "x",
        "--dev",
        "0.32",
        "--test",
        "0.32",
    )
    found = succeeds(*words, "--json").json
    assert found["summary"]["clips"] == 64
    assert found["root"] == str(prepared.voices)
    assert set(found["lists"]) == set(map("trials_{}".format, found["trials"]))
    for name in ("manifest.parquet", "trials_dev.txt", "trials_test.txt"):
        assert (tmp_path / "x" / name).read_bytes() == (prepared.data / name).read_bytes()
    assert succeeds(*words, "--seed", "11").code == 0
    assert (tmp_path / "x/trials_dev.txt").read_text() != (
        prepared.data / "trials_dev.txt"
    ).read_text()


def test_prepare_without_shares_makes_no_lists(prepared: Prepared, tmp_path: Path) -> None:
    found = succeeds("prepare", "folder", prepared.voices, tmp_path / "x", "--json").json
    assert (found["lists"], found["trials"]) == ({}, {})
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["manifest.parquet"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["foldr", "{voices}"], ["there is no corpus called 'foldr'", "did you mean folder?"]),
        (["folder", "/no/such"], ["/no/such is not a folder"]),
        (["folder", "{voices}", "licenc=x"], ["licenc: unknown key; did you mean 'licence'?"]),
        (["folder", "{voices}", "licence"], ["'licence' is not an override"]),
        (["folder", "{voices}", "--dev", "0.6", "--test", "0.4"], ["leave some to train on"]),
        (["folder", "{voices}", "--dev", "0.3", "--test", "0.01"], ["give --test a larger share"]),
        (["voxceleb1", "{voices}"], ["does not look like VoxCeleb1", "docs/corpora.md"]),
    ],
)
def test_a_corpus_that_cannot_be_prepared_leaves_nothing(
    voices: Path, tmp_path: Path, words: list[str], said: list[str]
) -> None:
    corpus, source, *rest = [word.format(voices=voices) for word in words]
    before = files_below(voices)
    outcome = glottis("prepare", corpus, source, tmp_path / "new", *rest)
    assert (outcome.code, outcome.out) == (2, "")
    for text in said:
        assert text in outcome.err
    assert not (tmp_path / "new").exists()
    assert files_below(voices) == before


def test_the_store_holds_every_clip(prepared: Prepared) -> None:
    store = PackedStore(prepared.store)
    assert len(store) == 64
    assert store.verify() == 64


def test_packing_says_how_much_there_is(prepared: Prepared, tmp_path: Path) -> None:
    words = ("pack", prepared.manifest, tmp_path / "store", "--root", prepared.voices)
    first = succeeds(*words, "--workers", 0)
    assert "64 clips, about 51 s -> 1.6 MB (" in first.out
    assert f"-> {tmp_path / 'store'}" in first.out
    assert "next: glottis train RECIPE 'data.root=" in first.out.splitlines()[-1]
    assert first.err == ""  # no progress bar: this is no terminal
    assert "was complete already" in succeeds(*words).out
    again = succeeds(*words, "--json").json
    assert again["already_finished"] is True
    flac = succeeds(*words[:2], tmp_path / "flac", *words[3:], "--codec", "flac", "--json").json
    assert (flac["clips"], flac["quarantined"]) == (64, [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/no/such.csv", "{new}"], "there is no manifest /no/such.csv"),
        (["{manifest}", "{new}"], "--root"),  # without --root: the manifest's own folder
        (["{manifest}", "{voices}", "--root", "{voices}"], "is not empty"),
        (["{manifest}", "{new}", "--root", "{voices}", "--codec", "mp3"], "no codec 'mp3'"),
        ([str(RECIPE), "{new}"], "a manifest ends with .csv"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    prepared: Prepared, tmp_path: Path, words: list[str], said: str
) -> None:
    new = tmp_path / "new"
    names = {"manifest": prepared.manifest, "voices": prepared.voices, "new": new}
    before = files_below(prepared.voices)
    outcome = glottis("pack", *(word.format(**names) for word in words))
    assert outcome.code == 2
    assert said in outcome.err
    assert not new.exists()
    assert files_below(prepared.voices) == before


def test_pieces_of_recordings_are_packed_as_pieces(voices: Path, tmp_path: Path) -> None:
    table = tmp_path / "pieces.csv"
    table.write_text("utterance,path,start_s,end_s\na,person00/0.wav,0.1,0.3\n")
    found = succeeds("pack", table, tmp_path / "store", "--root", voices, "--json").json
    assert (found["clips"], round(found["seconds"], 2)) == (1, 0.2)


def test_a_broken_file_is_left_out_and_named(prepared: Prepared, tmp_path: Path) -> None:
    import shutil

    voices = shutil.copytree(prepared.voices, tmp_path / "voices")
    (voices / "person00/0.wav").write_bytes(b"RIFF, but nothing else")
    words = ("pack", prepared.manifest, tmp_path / "store", "--root", voices, "--workers", 0)
    strict = glottis(*words, "--budget", "0")
    assert strict.code == 1
    assert "person00/0.wav" in strict.err
    found = succeeds(*words, "--json").json
    assert found["clips"] == 63
    assert [entry["utterance"] for entry in found["quarantined"]] == ["person00/0"]


def test_the_model_is_evaluated_on_strangers(prepared: Prepared, run: Path, tmp_path: Path) -> None:
    words = ("evaluate", run, "--trials", prepared.data / "trials_test.txt")
    outcome = succeeds(*words, "--out", tmp_path / "report", "--scores", tmp_path / "scores.txt")
    lines = outcome.out.splitlines()
    assert lines[0] == f"{prepared.data / 'trials_test.txt'} (evaluation)"
    eer = next(line for line in lines if line.startswith("EER  "))
    assert "%" in eer
    assert "[" in eer
    report = {path.name for path in (tmp_path / "report").iterdir()}
    assert report == {"result.json", "result.md", "det.png", "scores.png"}
    found = succeeds(*words, "--json").json
    assert found["metrics"]["eer"]["low"] <= found["metrics"]["eer"]["high"]
    assert found["data"]["role"] == "evaluation"
    # the scores are those of the result
    scored = succeeds(
        *("score-metrics", tmp_path / "scores.txt"),
        *("--key", prepared.data / "trials_test.txt", "--json"),
    ).json
    assert scored["metrics"]["eer"]["value"] == pytest.approx(found["metrics"]["eer"]["value"])


def test_the_list_that_chose_the_model_gives_a_development_number(
    prepared: Prepared, run: Path
) -> None:
    outcome = succeeds("evaluate", run, "--trials", prepared.data / "trials_dev.txt")
    assert "trials_dev.txt (development)" in outcome.out.splitlines()[0]
    assert "not an evaluation result" in outcome.out


def test_training_speakers_are_refused_in_a_report(
    prepared: Prepared, run: Path, tmp_path: Path
) -> None:
    table = Manifest.read(prepared.manifest).select(split="train")
    one, two = [str(path) for path in table.column("path")][:2]
    (tmp_path / "trials.txt").write_text(f"1 {one} {two}\n0 {two} {one}\n")
    outcome = glottis("evaluate", run, "--trials", tmp_path / "trials.txt")
    assert outcome.code == 2
    assert "training" in outcome.err


def test_two_files_are_verified_with_the_threshold_of_development(
    prepared: Prepared, run: Path
) -> None:
    a, b = prepared.voices / "person00/0.wav", prepared.voices / "person00/1.wav"
    text = succeeds("verify", run, a, b).out
    assert text.startswith("score ")
    assert " voice (threshold " in text
    assert "trials_dev.txt" in text


def test_the_order_of_the_two_files_does_not_matter(prepared: Prepared, run: Path) -> None:
    a, b = prepared.voices / "person00/0.wav", prepared.voices / "person01/0.wav"
    first: Any = succeeds("verify", run, a, b, "--json").json
    second: Any = succeeds("verify", run, b, a, "--json").json
    assert first["score"] == pytest.approx(second["score"])
    assert first["decision"] == second["decision"]
