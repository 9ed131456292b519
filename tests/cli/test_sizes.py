"""``--dim``: the sizes of a Matryoshka embedding in ``embed``, ``verify`` and ``evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from glottis.score import Embeddings
from helpers.cli import glottis, succeeds
from helpers.tones import speaker_tree, write_corpus


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps over 4, 8 and 16 values, and enough voices for an interval."""
    root = tmp_path_factory.mktemp("sizes")
    corpus = write_corpus(root / "corpus", dev=10, clips=3)
    loss = {"name": "matryoshka", "dims": [4, 8, 16], "loss": {"name": "aam_softmax"}}
    tree = speaker_tree(corpus, train__steps=4, evaluate__every_steps=4) | {"loss": loss}
    (root / "recipe.yaml").write_text(yaml.safe_dump(tree))
    succeeds("train", root / "recipe.yaml", "--out", root / "run")
    return root / "run"


def clip(run: Path, name: str) -> Path:
    return run.parent / "corpus" / f"{name}_bonafide.wav"


def test_every_evaluation_of_a_training_has_all_sizes(run: Path) -> None:
    (line,) = [
        record
        for record in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        if "dev/eer" in record
    ]
    assert line["dev/16/eer"] == line["dev/eer"]
    assert line["dev/16/ratio"] == 1.0
    for size in (4, 8, 16):
        assert (
            line[f"dev/{size}/eer_low"] <= line[f"dev/{size}/eer"] <= line[f"dev/{size}/eer_high"]
        )
        assert 0 < line[f"dev/{size}/min_dcf_0.05"] <= 1
        ratio = line[f"dev/{size}/eer"] / line["dev/eer"]
        assert line[f"dev/{size}/ratio"] == pytest.approx(ratio)


def test_an_evaluation_compares_the_sizes_with_the_whole(run: Path) -> None:
    words = ("evaluate", run, "--trials", run.parent / "corpus" / "trials_dev.txt", "--json")
    whole = succeeds(*words).json
    assert not [cell for cell in whole["cells"] if cell["condition"] == "dim"]
    every = succeeds(*words, "--dim", "all").json
    assert every["metrics"] == whole["metrics"]
    cells = {c["value"]: c["metrics"] for c in every["cells"] if c["condition"] == "dim"}
    assert list(cells) == ["4", "8", "16"]
    assert cells["16"]["eer"] == whole["metrics"]["eer"]
    assert "eer_ratio" not in cells["16"]
    for size in ("4", "8"):
        ratio, eer = cells[size]["eer_ratio"], cells[size]["eer"]["value"]
        assert ratio["value"] == pytest.approx(eer / whole["metrics"]["eer"]["value"])
        assert ratio["low"] <= ratio["value"] <= ratio["high"]
        assert ratio["method"].startswith("paired speaker bootstrap")
    some = succeeds(*words, "--dim", "8,4").json
    assert some["metrics"]["eer"] == cells["8"]["eer"]  # the result is that of the largest
    assert "embeddings of 8 of 16 values" in some["notes"]
    shown = succeeds(*words[:-1], "--dim", "4").out
    assert "EER over the whole's" in shown


def test_embeddings_are_written_in_every_size(run: Path, tmp_path: Path) -> None:
    files, out = [clip(run, "s06_0"), clip(run, "s07_0")], tmp_path / "emb.parquet"
    found = succeeds("embed", run, *files, "--out", out, "--dim", "8,16", "--json").json
    assert [row["dim"] for row in found] == [8, 16]
    small, whole = (Embeddings.load(row["out"]) for row in found)
    assert Path(found[0]["out"]).name == "emb.8.parquet"
    assert whole.dims == (4, 8, 16)
    assert small.dims == (4, 8)
    np.testing.assert_allclose(small.matrix, whole.dim(8).matrix, rtol=1e-6)
    one = succeeds("embed", run, *files, "--out", out, "--dim", "4").out
    assert one == f"2 embeddings of 4 values -> {out}\n"


def test_two_files_are_compared_in_every_size(run: Path) -> None:
    pair = clip(run, "s06_0"), clip(run, "s06_1")
    found = succeeds("verify", run, *pair, "--dim", "all", "--json").json
    assert [one["dim"] for one in found["sizes"]] == [4, 8, 16]
    assert found["score"] == found["sizes"][-1]["score"]
    assert len({one["threshold"] for one in found["sizes"]}) == 3  # each has its own
    said = succeeds("verify", run, *pair, "--dim", "4,16").out
    assert "(cosine, first 4 values)" in said
    assert succeeds("verify", run, *pair, "--json").json["score"] == found["score"]


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "{run}", "{clip}", "{clip}"),
        ("embed", "{run}", "{clip}", "--out", "{new}"),
        ("evaluate", "{run}", "--trials", "{trials}"),
    ],
)
def test_a_size_that_was_not_trained_is_refused(words: Any, run: Path, tmp_path: Path) -> None:
    places = {
        **{"run": run, "clip": clip(run, "s06_0"), "new": tmp_path / "x.parquet"},
        "trials": run.parent / "corpus" / "trials_dev.txt",
    }
    outcome = glottis(*(word.format(**places) for word in words), "--dim", "8,10")
    assert (outcome.code, outcome.out) == (2, "")
    assert "dim=10 was not trained: there are embeddings of 4, 8, 16 values" in outcome.err
    assert "10 in loss.dims" in outcome.err
    assert not (tmp_path / "x.parquet").exists()


def test_sizes_of_a_countermeasure_or_of_several_models_are_refused(bench: Any, run: Path) -> None:
    trials = ("--trials", run.parent / "corpus" / "trials_dev.txt", "--dim", "all")
    assert "several models" in glottis("evaluate", run, run, *trials).err
    protocol = ("--protocol", bench.corpus / "cm.dev.txt", "--dim", "all")
    assert "a countermeasure" in glottis("evaluate", bench.spoof, *protocol).err


def test_a_voice_is_found_among_voice_prints(bench: Any, run: Path, tmp_path: Path) -> None:
    store = tmp_path / "voices.parquet"
    enrolled = [clip(run, f"s{speaker:02d}_0") for speaker in range(6, 12)]
    succeeds("embed", run, *enrolled, "--out", store)
    words = ("identify", run, enrolled[2], "--store", store, "--top", 2)
    (exact,) = succeeds(*words, "--json").json
    assert exact["dim"] == 16
    best, second = exact["matches"]
    assert best["utterance"] == str(enrolled[2])
    assert best["score"] == pytest.approx(1, abs=1e-5)
    assert best["decision"] == "same"
    assert second["score"] <= best["score"]
    score = succeeds("verify", run, enrolled[2], second["utterance"], "--json").json["score"]
    assert second["score"] == pytest.approx(score, abs=1e-5)
    (short,) = succeeds(*words, "--shortlist", 6, "--json").json
    assert short == exact
    every = succeeds(*words, "--dim", "all", "--json").json
    assert succeeds(*words, "--dim", "all", "--shortlist", 6, "--json").json == every
    assert [one["dim"] for one in every] == [4, 8, 16]
    assert len({one["threshold"] for one in every}) == 3
    said = succeeds(*words).out
    assert said.splitlines()[0].split() == ["file", "dim", "voice", "print", "score", "decision"]
    assert "same from a score of" in said
    for more, told in (
        (("--dim", "4", "--shortlist", "3"), "the smallest size"),
        (("--dim", "5"), "dim=5 was not trained"),
        (("--shortlist", "1"), "--shortlist 1 is shorter than --top 2"),
    ):
        outcome = glottis(*words, *more)
        assert (outcome.code, outcome.out) == (2, "")
        assert told in outcome.err
    other = glottis("identify", bench.speaker, enrolled[0], "--store", store)
    assert (other.code, other.out) == (2, "")
    assert "two models lie in two spaces" in other.err
