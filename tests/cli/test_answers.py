"""``verify``, ``detect``, ``embed``, ``inspect``, ``import-weights``: a model and files in hand."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from glottis.score import Embeddings
from helpers.cli import files_below, glottis, succeeds

NO_AUDIO = ["empty.wav", "text.wav", "nan.wav", "header_only.wav"]
NOTHING_IN_IT = ["all_zero.wav", "dc_only.wav", "one_sample.wav", "clip_50ms.wav"]


def test_verify_says_score_decision_and_where_the_threshold_is_from(bench: Any) -> None:
    lines = succeeds("verify", bench.speaker, *bench.same).out.splitlines()
    assert lines[0].startswith("score ")
    assert lines[1].startswith(("decision: same voice (", "decision: different voice ("))
    assert lines[2].startswith("threshold from: development EER ")
    notes = [line for line in lines if line.startswith("note: ")]
    assert len(notes) == 2  # both clips are short


def test_verify_in_json(bench: Any) -> None:
    found = succeeds("verify", bench.speaker, bench.same[0], bench.other, "--json").json
    assert -1 <= found["score"] <= 1
    assert found["decision"] == ("same" if found["score"] >= found["threshold"] else "different")


def test_a_file_is_the_same_voice_as_itself(bench: Any) -> None:
    found = succeeds("verify", bench.speaker, bench.other, bench.other, "--json").json
    assert found["score"] == pytest.approx(1.0, abs=1e-5)
    assert found["decision"] == "same"


def test_detect_has_a_row_for_every_file(bench: Any) -> None:
    files = [*bench.same, bench.corpus / "s06_0_spoof.wav"]
    lines = succeeds("detect", bench.spoof, *files).out.splitlines()
    assert lines[0].split() == ["file", "score", "decision", "segments"]
    assert [line.split()[0] for line in lines[1:4]] == list(map(str, files))
    assert lines[4].startswith("bonafide from a score of ")
    found = succeeds("detect", bench.spoof, *files, "--json").json
    assert [row["file"] for row in found] == list(map(str, files))
    for row in found:
        assert row["decision"] == ("bonafide" if row["score"] >= row["threshold"] else "spoof")


def test_embeddings_are_written_by_name_and_at_unit_length(bench: Any, tmp_path: Path) -> None:
    out = tmp_path / "emb.parquet"
    files = [*bench.same, bench.other]
    said = succeeds("embed", bench.speaker, *files, bench.other, "--out", out).out
    assert said == f"3 embeddings of 16 values -> {out}\n"  # a file given twice is embedded once
    found = Embeddings.load(out)
    assert list(found.utterances) == list(map(str, files))
    assert np.allclose(np.linalg.norm(found.matrix, axis=1), 1.0)
    score = succeeds("verify", bench.speaker, *bench.same, "--json").json["score"]
    assert found.matrix[0] @ found.matrix[1] == pytest.approx(score, abs=1e-5)


def test_a_name_that_is_not_text_is_judged_but_cannot_be_a_key(bench: Any, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"gr\xfcn.wav")
    shutil.copy(bench.other, odd)
    found = succeeds("detect", bench.spoof, odd, "--json").json
    assert found[0]["file"] == str(odd)
    outcome = glottis("embed", bench.speaker, odd, "--out", tmp_path / "emb.parquet")
    assert outcome.code == 2
    assert "is not text" in outcome.err
    assert not (tmp_path / "emb.parquet").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verify", "{spoof}", "{a}", "{b}"], "is a spoof model; this needs a speaker model"),
        (["detect", "{speaker}", "{a}"], "is a speaker model; this needs a spoof model"),
        (["embed", "{spoof}", "{a}", "--out", "{new}"], "fix: use 'glottis detect'"),
        (["embed", "{speaker}", "{a}", "--out", "{new}", "--dim", "17"], "dim=17 was not trained"),
        (["embed", "{speaker}", "{a}", "--out", "{new}", "--dim", "x"], "x is no list of sizes"),
        (["embed", "{speaker}", "/no/such.wav", "--out", "{new}"], "/no/such.wav: no such file"),
        (["embed", "{speaker}", "{a}", "--out", "{new}/x"], "there is no folder {new}"),
        (["embed", "{speaker}", "{a}", "--out", "{corpus}"], "is a folder; a file is needed"),
        (["verify", "{corpus}", "{a}", "{b}"], "{corpus} holds no model"),
        (["verify", "{a}", "{a}", "{b}"], "{a} holds no model"),
        (["verify", "/no/such", "{a}", "{b}"], "/no/such holds no model"),
        (["verify", "{speaker}", "{a}", "{corpus}"], "this is a folder, not an audio file"),
        (["verify", "{speaker}", "{a}", "{recipe}"], "this is a text file, not audio"),
        (["detect", "{spoof}", "{a}", "/no/such.wav"], "/no/such.wav: no such file"),
        (["inspect", "{corpus}"], "{corpus} holds no model"),
        (["import-weights", "aasits", "{a}", "{new}"], "did you mean aasist"),
        (["import-weights", "aasist", "/no/such.pth", "{new}"], "there is no file /no/such.pth"),
        (["import-weights", "aasist", "{recipe}", "{new}"], "{recipe} cannot be read as weights"),
        (["import-weights", "aasist", "{weights}", "{new}"], "tensors do not fit"),
        (["import-weights", "aasist", "{weights}", "{a}"], "is a file; a folder is needed"),
        (["import-weights", "aasist", "{weights}", "{new}", "heads=3"], "heads: unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_line_and_leaves_nothing(
    bench: Any, tmp_path: Path, words: list[str], said: str
) -> None:
    names = {
        **{"speaker": bench.speaker, "spoof": bench.spoof, "corpus": bench.corpus},
        **{"a": bench.same[0], "b": bench.same[1], "recipe": bench.speaker_recipe},
        **{"weights": bench.spoof / "checkpoints/best/model.safetensors", "new": tmp_path / "new"},
    }
    before = files_below(bench.root)
    outcome = glottis(*(word.format(**names) for word in words))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("glottis: ")
    assert said.format(**names) in outcome.err
    assert not (tmp_path / "new").exists()
    assert files_below(bench.root) == before


@pytest.fixture
def copied(bench: Any, tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(bench.speaker / "checkpoints/step-00000002", tmp_path / "model"))


def edit(card: Path, **changes: Any) -> None:
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda m: edit(m / "card.json", format=99, glottis="9.9"), "was written by Glottis 9.9"),
        (lambda m: (m / "card.json").write_text('{"form'), "is not JSON"),
        (lambda m: (m / "card.json").write_text("[]"), "is not the card of a model"),
        (lambda m: (m / "card.json").unlink(), "holds no model"),
        (lambda m: (m / "model.safetensors").unlink(), "there is no file"),
        (lambda m: (m / "model.safetensors").write_bytes(b"x" * 99), "cannot be read as weights"),
        (lambda m: edit(m / "card.json", weights_sha256="0"), "is not the file that card.json"),
    ],
    ids=[
        "newer",
        "cut card",
        "other card",
        "no card",
        "no weights",
        "bad weights",
        "other weights",
    ],
)
@pytest.mark.parametrize("verb", ["verify", "inspect"])
def test_a_model_folder_that_is_not_whole_is_refused(
    bench: Any, copied: Path, verb: str, damage: Any, said: str
) -> None:
    damage(copied)
    files = bench.same if verb == "verify" else ()
    outcome = glottis(verb, copied, *files)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err


def test_inspect_shows_parameters_norms_learned_weights_and_the_card(bench: Any) -> None:
    text = succeeds("inspect", bench.speaker).out
    assert "resnetse34l (speaker), 1,373,094 parameters, 16 values per embedding" in text
    sections = [line for line in text.splitlines() if line and not line.startswith(" ")]
    for title in ("options", "front end", "card", "layers"):
        assert title in sections
    assert "network.stem.weight" in text
    assert "learned weights" in text
    assert "development.threshold" in text
    found = succeeds("inspect", bench.speaker, "--json").json
    assert found["card"]["parameters"] == sum(layer["values"] for layer in found["layers"])
    assert found["card"]["extra"]["data"]["train"]["by"]
    assert len(found["learned"]["network.embedding.bias"]) == 16


def test_inspect_takes_a_run_a_link_or_a_checkpoint(bench: Any) -> None:
    folder = bench.spoof / "checkpoints"
    shown = {
        succeeds("inspect", path, "--json").out
        for path in (bench.spoof, folder / "best", folder / "step-00000002")
    }
    assert len(shown) == 1


def test_official_weights_are_imported_and_judge_real_speech(shared: Path, tmp_path: Path) -> None:
    weights, model = shared / "golden/AASIST_weights.safetensors", tmp_path / "aasist"
    said = succeeds("import-weights", "aasist", weights, model).out
    assert "(100.00 %)" in said
    assert said.endswith(f"saved to {model}\n")
    assert "297,866 parameters" in succeeds("inspect", model).out
    human = next((shared / "speech/bonafide").rglob("*.flac"))
    fake = next((shared / "speech/spoof").rglob("*.flac"))
    lines = succeeds("detect", model, human, fake).out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == [str(human), str(fake)]
    assert "no decision" in lines[3]  # official weights come without development trials
    found = succeeds("import-weights", "aasist", weights, tmp_path / "again", "--json").json
    assert found["parameters"] == 297_866
    assert found["unexpected"] == []
    first = (model / "model.safetensors").read_bytes()
    assert first == (tmp_path / "again/model.safetensors").read_bytes()


def test_weights_of_another_architecture_are_refused(shared: Path, tmp_path: Path) -> None:
    weights = shared / "golden/AASIST-L_weights.safetensors"
    outcome = glottis("import-weights", "aasist", weights, tmp_path / "new")
    assert outcome.code == 2
    assert "93 tensors do not fit" in outcome.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name", [*("empty.wav", "text.wav", "nan.wav", "header_only.wav"), *NOTHING_IN_IT]
)
def test_audio_that_cannot_be_judged_is_refused(shared: Path, bench: Any, name: str) -> None:
    path = shared / "speech/nasty" / name
    outcome = glottis("detect", bench.spoof, path)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"glottis: {path}: ")
    outcome = glottis("detect", bench.spoof, bench.other, path, "--json")
    assert (outcome.code, outcome.out) == (2, "")
    for pair in ((path, bench.other), (bench.other, path), (path, path)):
        outcome = glottis("verify", bench.speaker, *pair)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith(f"glottis: {path}: ")


def test_audio_with_a_defect_is_judged_with_a_note(shared: Path, bench: Any) -> None:
    found = succeeds("detect", bench.spoof, shared / "speech/nasty/clipped.wav", "--json").json
    assert "clipped" in " ".join(found[0]["notes"])


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros(32000), "all 32,000 samples are 0: digital silence"),
        (np.full(32000, 0.25), "all 32,000 samples are 0.25: digital silence"),
        (np.sin(np.arange(1500)), "0.0938 s of audio, less than 0.1 s"),
    ],
)
def test_nothing_to_judge_gives_no_number(
    bench: Any, tmp_path: Path, samples: np.ndarray, said: str
) -> None:
    path, out = tmp_path / "a.wav", tmp_path / "emb.parquet"
    soundfile.write(path, samples, 16000, subtype="PCM_16")
    for words in (
        ("verify", bench.speaker, bench.other, path),
        ("detect", bench.spoof, path),
        ("embed", bench.speaker, bench.other, path, "--out", out),
    ):
        outcome = glottis(*words)
        assert (outcome.code, outcome.out) == (2, "")
        assert said in outcome.err
        assert "why: " in outcome.err
        assert "fix: " in outcome.err
    assert not out.exists()


def test_embed_tells_what_is_odd_about_a_file(
    bench: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "offset.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(32000)) + 0.2, 16000, subtype="PCM_16")
    succeeds("embed", bench.speaker, path, "--out", tmp_path / "emb.parquet")
    assert f"{path}: dc_offset" in caplog.text


def test_a_model_that_heard_no_people_says_so(bench: Any, copied: Path) -> None:
    assert "SYNTHETIC" not in succeeds("verify", copied, *bench.same).out
    extra = json.loads((copied / "card.json").read_text())["extra"]
    extra["data"]["train"]["by"]["source"] = {"synthetic": {"clips": 24}}
    edit(copied / "card.json", extra=extra)
    assert "SYNTHETIC: computer-made talkers" in succeeds("verify", copied, *bench.same).out
