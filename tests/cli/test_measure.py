"""``evaluate`` and ``score-metrics``: numbers with their lists, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from glottis.cli.evaluate import COMBINATIONS
from glottis.cli.score_metrics import KINDS
from glottis.models import build_model, load_model, read_card, save_model
from glottis.models.ensemble import Combine
from glottis.score.answer import resolve_checkpoint
from glottis.score.fused_files import Kind
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


def test_another_root_keeps_what_the_manifest_of_the_run_knows(bench: Any, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(bench.corpus, moved)
    words = ("evaluate", bench.speaker, "--trials", moved / "trials_dev.txt", "--by", "session")
    own, found = succeeds(*words, "--json").json, succeeds(*words, "--json", "--root", moved).json
    assert found["metrics"] == own["metrics"]
    assert found["cells"] == own["cells"]
    said = succeeds(*words, "--root", moved).out
    assert "only n: 4 enrolment speakers, fewer than 5" in said
    assert f"note: speakers and conditions are from {bench.corpus / 'manifest.csv'}" in said
    train = tmp_path / "train.txt"
    train.write_text("1 s00_0_bonafide s00_1_bonafide\n0 s00_0_bonafide s01_1_bonafide\n")
    outcome = glottis("evaluate", bench.speaker, "--trials", train, "--root", moved)
    assert outcome.code == 2
    assert "[P1]" in outcome.err
    assert "3 of 3 clips are training data" in outcome.err


def test_a_list_without_people_is_marked(bench: Any, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    words = ("evaluate", bench.speaker, "--trials", bench.corpus / "trials_dev.txt")
    words += ("--manifest", manifest, "--root", bench.corpus, "--json")
    table = (bench.corpus / "manifest.csv").read_text()
    manifest.write_text(table.replace(",tones,", ",synthetic,"))
    assert succeeds(*words).json["notes"][0].startswith("SYNTHETIC: computer-made talkers")
    manifest.write_text(table.replace(",tones,", ",synthetic,", 60))  # some are people
    assert not any("SYNTHETIC" in note for note in succeeds(*words).json["notes"])


def test_what_is_lost_without_a_manifest_is_said(bench: Any, tmp_path: Path) -> None:
    strange = tmp_path / "strange"  # the same voices under names that the run does not know
    strange.mkdir()
    lines = (bench.corpus / "trials_dev.txt").read_text()
    (strange / "trials.txt").write_text(lines.replace("_bonafide", "_b"))
    for file in bench.corpus.glob("*_bonafide.wav"):
        shutil.copy(file, strange / file.name.replace("_bonafide", "_b"))
    words = ("evaluate", bench.speaker, "--trials", strange / "trials.txt")
    said = succeeds(*words, "--root", strange).out
    assert "the manifest of the run, is not used: 16 of the 16 utterances of " in said
    assert "without a manifest speakers are unknown, so the interval is that of trials; " in said
    assert "no tables by source, channel; clips of the training data would not be noticed" in said
    assert "trial bootstrap (speakers unknown" in said


def test_clips_of_a_protocol_are_found_by_pattern(bench: Any, tmp_path: Path) -> None:
    words = ("evaluate", bench.spoof, "--protocol", bench.corpus / "cm.dev.txt", "--json")
    own = succeeds(*words).json
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in bench.corpus.glob("*.wav"):
        shutil.copy(file, flat / f"x_{file.name}")
    found = succeeds(*words, "--root", flat, "--pattern", "x_{utterance}.wav").json
    assert found["thresholds"] == pytest.approx(own["thresholds"], abs=1e-5)
    outcome = glottis(*words, "--root", flat, "--pattern", "x.wav")
    assert (outcome.code, outcome.out) == (2, "")
    assert "every utterance would be the same file" in outcome.err


def test_a_speaker_model_is_not_measured_on_spoof_trials(bench: Any, tmp_path: Path) -> None:
    trials = tmp_path / "trials.txt"
    names = "s06_0_bonafide", "s06_1_bonafide", "s07_0_bonafide", "s06_1_spoof"
    kinds = "target", "nontarget", "spoof"
    trials.write_text(
        "".join(f"{names[0]} {b} {k}\n" for b, k in zip(names[1:], kinds, strict=True))
    )
    outcome = glottis("evaluate", bench.speaker, "--trials", trials)
    assert (outcome.code, outcome.out) == (2, "")
    assert "1 of 3 trials are spoof trials" in outcome.err


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
        (["{speaker}", "--trials", "{trials}", "--store", "{new}"], "no packed store at"),
        (["{speaker}", "--trials", "{trials}", "--scores", "{new}/x"], "there is no folder {new}"),
        (["{speaker}", "--trials", "{trials}", "--out", "{trials}"], "a folder is needed"),
        (["{spoof}", "--protocol", "{protocol}", "--root", "{runs}"], "--pattern"),
        (
            ["{spoof}", "--protocol", "{protocol}", "--pattern", "{{utterance}}.ogg"],
            "32 of 32 clips are not below",
        ),
        (
            ["{spoof}", "--protocol", "{protocol}", "--pattern", "{{utterance}}", "--store", "x"],
            "give --pattern or --store",
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
    direct = succeeds("evaluate", bench.speaker, "--trials", trials, "--json").json
    assert found["thresholds"]["eer"] == pytest.approx(direct["thresholds"]["eer"])
    assert found["layout"] == "trials"
    assert found["metrics"]["eer"]["method"].startswith("trial bootstrap (speakers unknown")
    calibrated = succeeds("score-metrics", scores, "--key", trials, "--calibrated", "--json").json
    assert not any("calibrated" in note for note in calibrated["notes"])


def test_speakers_for_the_intervals_come_from_a_table(
    bench: Any, scores: Path, tmp_path: Path
) -> None:
    words = ("score-metrics", scores, "--key", bench.corpus / "trials_dev.txt", "--json")
    manifest = bench.corpus / "manifest.csv"
    found = succeeds(*words, "--speakers", manifest).json
    assert found["metrics"]["eer"]["method"] == "only n: 4 enrolment speakers, fewer than 5"
    table = tmp_path / "utt2spk"
    names = [path.name for path in sorted(bench.corpus.glob("*_bonafide.wav"))]
    table.write_text("".join(f"{name} {name[:3]}\n" for name in names))
    assert succeeds(*words, "--speakers", table).json == found


def test_extra_scores_are_left_out_by_name_only(bench: Any, scores: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text(scores.read_text() + "x.wav y.wav 0.5\n")
    words = ("score-metrics", more, "--key", bench.corpus / "trials_dev.txt")
    outcome = glottis(*words)
    assert (outcome.code, outcome.out) == (1, "")
    assert "leave extra scores out with --allow-extra" in outcome.err
    said = succeeds(*words, "--allow-extra").out
    assert "1 scores of trials that the key does not have were left out" in said


def test_several_checkpoints_are_evaluated_as_one(bench: Any, tmp_path: Path) -> None:
    steps = sorted((bench.speaker / "checkpoints").glob("step-*"))[:2]
    trials, words = bench.corpus / "trials_dev.txt", []
    for number, step in enumerate(steps):
        words.append(tmp_path / f"{number}.txt")
        succeeds("evaluate", step, "--trials", trials, "--scores", words[-1])
    found = succeeds("evaluate", *steps, "--trials", trials, "--json").json
    assert any("ensemble of 2 models (embeddings joined by concat)" in n for n in found["notes"])
    # the cosine of joined embeddings is the mean of the cosines
    fused = succeeds("score-metrics", *words, "--fuse", "mean", "--key", trials, "--json").json
    assert found["thresholds"]["eer"] == pytest.approx(fused["thresholds"]["eer"], abs=1e-5)
    mean = succeeds("evaluate", *steps, "--trials", trials, "--combine", "mean", "--json").json
    assert any("joined by mean" in note for note in mean["notes"])
    protocol = bench.corpus / "cm.dev.txt"
    twice = succeeds("evaluate", bench.spoof, bench.spoof, "--protocol", protocol, "--json").json
    once = succeeds("evaluate", bench.spoof, "--protocol", protocol, "--json").json
    assert twice["thresholds"] == once["thresholds"]
    outcome = glottis("evaluate", bench.speaker, bench.spoof, "--trials", trials)
    assert (outcome.code, outcome.out) == (2, "")
    assert "models of different tasks cannot be one" in outcome.err
    cosine = tmp_path / "cosine"
    save_model(
        build_model(load_model(resolve_checkpoint(bench.spoof)).config, classifier="cosine"), cosine
    )
    outcome = glottis("evaluate", bench.spoof, cosine, "--protocol", protocol)
    assert (outcome.code, outcome.out) == (2, "")
    assert "the members differ in their classifiers: linear, cosine" in outcome.err
    outcome = glottis("evaluate", *steps, "--trials", trials, "--combine", "sum")
    assert "known: concat, mean" in outcome.err
    for words, shown in (
        ((steps[0], "--trials", trials), "one model"),
        ((bench.spoof, bench.spoof, "--protocol", protocol), "countermeasures"),
    ):
        outcome = glottis("evaluate", *words, "--combine", "mean")
        assert (outcome.code, outcome.out) == (2, "")
        assert f"these are {shown}" in outcome.err


def test_the_words_of_the_command_line_are_those_of_the_library() -> None:
    """Repeated there because the library behind them imports torch."""
    assert get_args(Combine) == COMBINATIONS
    assert get_args(Kind) == KINDS


def test_an_ensemble_with_imported_weights_says_what_is_not_known(
    bench: Any, tmp_path: Path
) -> None:
    trials, own = bench.corpus / "trials_dev.txt", bench.speaker / "checkpoints" / "best"
    save_model(load_model(own), tmp_path / "imported")
    found = succeeds("evaluate", own, tmp_path / "imported", "--trials", trials, "--json").json
    assert any("trained on different manifests" in note for note in found["notes"])
    run_id = read_card(own)["extra"]["run_id"]
    assert found["metrics"]["eer"]["run_id"] == run_id
    same = succeeds("evaluate", own, own, "--trials", trials, "--json").json
    assert not any("different manifests" in note for note in same["notes"])


def test_score_files_of_several_systems_are_fused(bench: Any, scores: Path) -> None:
    words = ("--key", bench.corpus / "trials_dev.txt", "--json")
    alone = succeeds("score-metrics", scores, *words).json
    fused = succeeds("score-metrics", scores, scores, "--fuse", "mean", *words).json
    assert fused["metrics"]["eer"]["value"] == alone["metrics"]["eer"]["value"]
    assert "fusion 'mean': weights 0.5, 0.5, offset 0" in fused["remarks"]
    weighted = succeeds(
        "score-metrics", scores, scores, "--fuse", "mean", "--weights", "3,1", *words
    ).json
    assert "fusion 'mean': weights 0.75, 0.25, offset 0" in weighted["remarks"]
    for more, code, said in (
        ((scores,), 2, "--fuse mean, or --fuse logistic"),
        ((scores, "--fuse", "best"), 2, "known: mean, standardised, logistic"),
        ((scores, "--fuse", "mean", "--weights", "a,b"), 2, "is not a list of numbers"),
        (
            (
                *(scores, "--fuse", "logistic", "--dev", scores, "--dev", scores),
                *("--dev-key", bench.corpus / "trials_dev.txt"),
            ),
            2,
            "are among the development trials",
        ),
    ):
        outcome = glottis("score-metrics", scores, *more, *words)
        assert (outcome.code, outcome.out) == (code, "")
        assert said in outcome.err


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
        (["{scores}", "--key", "{trials}", "--speakers", "/no.txt"], 2, "table of speakers /no"),
        (["{scores}", "--key", "{trials}", "--speakers", "{scores}"], 2, "do not have 2 cells"),
        (["{scores}", "--key", "{trials}", "--speakers", "{two}"], 2, "has another speaker"),
        (["{scores}", "--key", "{trials}", "--speakers", "{one}"], 1, "15 of 16 utterances have"),
        (["{scores}", "--key", "{trials}", "--subset", "eval"], 2, "has no subsets"),
        (["{scores}", "--subset", "eval"], 2, "--key"),
        (["{cut}", "--key", "{trials}"], 1, "20 of 120 trials of the key have no score"),
    ],
)
def test_a_number_that_would_mean_nothing_is_refused(
    bench: Any, scores: Path, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    lines = scores.read_text().splitlines(keepends=True)
    (tmp_path / "cut.txt").write_text("".join(lines[:100]))
    (tmp_path / "one").write_text("s06_0_bonafide.wav s06\n")
    (tmp_path / "two").write_text("u a\nu b\n")
    names = {
        **{"one": tmp_path / "one", "two": tmp_path / "two"},
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
