"""``evaluate`` and ``score-metrics``: numbers with their lists, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.models import load_model, save_model
from helpers.cli import files_below, glottis, succeeds


def test_a_countermeasure_is_evaluated_by_attack(bench: Any, tmp_path: Path) -> None:
    scores, out = tmp_path / "scores.txt", tmp_path / "report"
    protocol = bench.corpus / "cm.dev.txt"
    said = succeeds(
        *("evaluate", bench.spoof, "--protocol", protocol, "--scores", scores, "--out", out)
    ).out
    assert said.splitlines()[0] == f"{protocol} (development)"
    assert "32 trials, 16 bona fide, 16 spoof, 4 bona fide voices" in said
    assert any(line.startswith("T01 ") for line in said.splitlines())
    assert "fewer than 5" in said  # four voices: counts, and no number
    assert len(scores.read_text().splitlines()) == 32
    names = {path.name for path in out.iterdir()}
    assert names == {"result.json", "result.md", "det.png", "scores.png"}
    found = succeeds("evaluate", bench.spoof, "--protocol", protocol, "--json").json
    assert found["task"] == "spoof"
    assert found == json.loads((out / "result.json").read_text())


def test_without_the_manifest_clips_are_found_by_pattern(bench: Any) -> None:
    words = ("evaluate", bench.spoof, "--protocol", bench.corpus / "cm.dev.txt", "--json")
    own = succeeds(*words).json
    found = succeeds(*words, "--root", bench.corpus, "--pattern", "{utterance}.wav").json
    assert found["thresholds"] == pytest.approx(own["thresholds"], abs=1e-5)


def test_without_speakers_the_interval_says_so(bench: Any) -> None:
    words = ("evaluate", bench.speaker, "--trials", bench.corpus / "trials_dev.txt")
    said = succeeds(*words, "--root", bench.corpus).out
    assert "speakers unknown" in said
    assert "EER" in said
    assert "only n: 4 enrolment speakers, fewer than 5" in succeeds(*words).out


def test_tables_are_made_by_the_columns_that_are_asked_for(bench: Any) -> None:
    words = ("evaluate", bench.speaker, "--trials", bench.corpus / "trials_dev.txt", "--json")
    by_session = succeeds(*words, "--by", "session").json["cells"]
    assert {cell["condition"] for cell in by_session} == {"session"}
    assert {cell["value"] for cell in by_session} == {"0", "1", "2", "3", "mixed"}
    assert succeeds(*words, "--by", "gender").json["cells"] == []  # one value: no table


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{speaker}"], "is evaluated with --trials FILE"),
        (["{spoof}"], "is evaluated with --protocol FILE"),
        (["{speaker}", "--protocol", "{protocol}"], "is evaluated with --trials FILE"),
        (["{speaker}", "--trials", "{trials}", "--protocol", "{protocol}"], "nothing else"),
        (["{speaker}", "--trials", "/no/such.txt"], "cannot read the trial list /no/such.txt"),
        (["{spoof}", "--protocol", "/no/such.txt"], "/no/such.txt"),
        (["{speaker}", "--trials", "{protocol}"], "do not have 3 cells"),
        (["{corpus}", "--trials", "{trials}"], "{corpus} holds no model"),
        (["{speaker}", "--trials", "{trials}", "--root", "/no/such"], "/no/such does not exist"),
        (["{speaker}", "--trials", "{trials}", "--root", "{runs}"], "16 of 16 clips are not below"),
        (["{speaker}", "--trials", "{trials}", "--by", "sesion"], "no column 'sesion'"),
        (["{speaker}", "--trials", "{trials}", "--device", "tpu"], "'tpu' is not a device"),
        (["{speaker}", "--trials", "{trials}", "--manifest", "/no.csv"], "no manifest /no.csv"),
        (["{speaker}", "--trials", "{trials}", "--store", "{corpus}"], "--manifest"),
        (["{speaker}", "--trials", "{trials}", "--scores", "{new}/x"], "there is no folder {new}"),
        (["{speaker}", "--trials", "{trials}", "--out", "{trials}"], "a folder is needed"),
        (["{spoof}", "--protocol", "{protocol}", "--root", "{corpus}"], "--pattern"),
        (
            ["{spoof}", "--protocol", "{protocol}", "--root", "{corpus}", "--pattern", "{{x}}"],
            "32 of 32 clips are not below",
        ),
    ],
)
def test_an_evaluation_that_makes_no_sense_is_refused(
    bench: Any, tmp_path: Path, words: list[str], said: str
) -> None:
    names = {
        **{"speaker": bench.speaker, "spoof": bench.spoof, "corpus": bench.corpus},
        **{"trials": bench.corpus / "trials_dev.txt", "protocol": bench.corpus / "cm.dev.txt"},
        **{"runs": bench.root / "runs", "new": tmp_path / "new"},
    }
    before = files_below(bench.root)
    outcome = glottis("evaluate", *(word.format(**names) for word in words))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("glottis: ")
    assert said.format(**names) in outcome.err
    assert files_below(bench.root) == before
    assert not (tmp_path / "new").exists()


def test_a_packed_store_of_a_newer_version_is_refused(bench: Any, tmp_path: Path) -> None:
    manifest, store = bench.corpus / "manifest.csv", tmp_path / "store"
    succeeds("pack", manifest, store, "--workers", "0")
    card = json.loads((store / "pack.json").read_text())
    (store / "pack.json").write_text(json.dumps(card | {"version": 99, "glottis": "9.9"}))
    words = ("--trials", bench.corpus / "trials_dev.txt", "--manifest", manifest)
    outcome = glottis("evaluate", bench.speaker, *words, "--store", store)
    assert outcome.code == 2
    assert "9.9" in outcome.err
    assert "newer" in outcome.err


# ---------------------------------------------------------------- score files


@pytest.fixture(scope="module")
def scores(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of the speaker run on its development trials, in ``enrol test score`` lines."""
    path = tmp_path_factory.mktemp("scores") / "scores.txt"
    trials = bench.corpus / "trials_dev.txt"
    succeeds(
        *("evaluate", bench.speaker, "--trials", trials, "--root", bench.corpus),
        *("--scores", path),
    )
    return path


def test_score_files_of_any_toolkit_are_measured(bench: Any, scores: Path) -> None:
    trials = bench.corpus / "trials_dev.txt"
    said = succeeds("score-metrics", scores, "--key", trials).out
    assert said.startswith(f"{scores}: 120 scores, layout trials\n")
    assert "minDCF(0.01)" in said
    assert "note: actDCF and Cllr" in said
    found = succeeds("score-metrics", scores, "--key", trials, "--json").json
    direct = succeeds(
        *("evaluate", bench.speaker, "--trials", trials, "--root", bench.corpus, "--json")
    ).json
    assert found["metrics"]["eer"]["value"] == direct["metrics"]["eer"]["value"]
    assert found["layout"] == "trials"
    calibrated = succeeds("score-metrics", scores, "--key", trials, "--calibrated", "--json").json
    assert not any("calibrated" in note for note in calibrated["notes"])


def test_a_score_file_with_labels_needs_no_key(bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "cm.txt"
    protocol = bench.corpus / "cm.dev.txt"
    succeeds("evaluate", bench.spoof, "--protocol", protocol, "--scores", path)
    found = succeeds("score-metrics", path, "--json").json
    assert (found["task"], found["n"]["spoof"]) == ("spoof", 16)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["/no/such.txt"], 2, "cannot read the score file /no/such.txt"),
        (["{scores}", "--key", "/no/such.txt"], 2, "cannot read the key /no/such.txt"),
        (["{scores}", "--key", "{trials}", "--layout", "x"], 2, "there is no score layout 'x'"),
        (["{recipe}"], 2, "lines of the score file do not have"),
        (["{scores}"], 1, "give the trial list or the protocol with --key"),
        (["{cut}", "--key", "{trials}"], 1, "20 of 120 trials of the key have no score"),
    ],
)
def test_a_number_that_would_mean_nothing_is_refused(
    bench: Any, scores: Path, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    lines = scores.read_text().splitlines(keepends=True)
    (tmp_path / "cut.txt").write_text("".join(lines[:100]))
    names = {
        **{"scores": scores, "trials": bench.corpus / "trials_dev.txt"},
        **{"recipe": bench.speaker_recipe, "cut": tmp_path / "cut.txt"},
    }
    outcome = glottis("score-metrics", *(word.format(**names) for word in words))
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith("glottis: ")
    assert said in outcome.err


def test_embeddings_without_an_angle_are_a_failed_check(bench: Any, tmp_path: Path) -> None:
    model = load_model(bench.speaker / "checkpoints/best")
    for parameter in model.network.embedding.parameters():
        torch.nn.init.zeros_(parameter)
    save_model(model, tmp_path / "model")
    outcome = glottis(
        *("evaluate", tmp_path / "model", "--trials", bench.corpus / "trials_dev.txt"),
        *("--root", bench.corpus, "--scores", tmp_path / "scores.txt"),
    )
    assert (outcome.code, outcome.out) == (1, "")
    assert "16 embeddings are all zeros" in outcome.err
    assert not (tmp_path / "scores.txt").exists()
