"""``models``, ``losses``, ``corpora``, ``recipes``: what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from glottis.data.corpora import CORPORA
from glottis.losses import LOSSES
from glottis.models import MODELS
from helpers.cli import glottis, succeeds

REGISTRIES = {"models": MODELS, "losses": LOSSES, "corpora": CORPORA}
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("verb", REGISTRIES)
def test_a_listing_has_every_name_with_a_summary(verb: str) -> None:
    names = REGISTRIES[verb].names()
    lines = succeeds(verb).out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == names
    rows = succeeds(verb, "--json").json
    assert [row["name"] for row in rows] == names
    assert all(len(row["summary"]) > 20 for row in rows)


@pytest.mark.parametrize("verb", REGISTRIES)
def test_every_entry_shows_its_options(verb: str) -> None:
    for name in REGISTRIES[verb].names():
        found = succeeds(verb, name, "--json").json
        fields = set(REGISTRIES[verb][name].config.__pydantic_fields__)
        assert {option["key"] for option in found["options"]} == fields
        text = succeeds(verb, name).out
        assert text.startswith(f"{name}: ")
        assert "Pydantic" not in text
        assert "typing" not in text


@pytest.mark.parametrize("verb", REGISTRIES)
def test_an_unknown_name_is_a_wrong_request(verb: str) -> None:
    outcome = glottis(verb, "aasit")
    assert (outcome.code, outcome.out) == (2, "")
    assert "called 'aasit'" in outcome.err
    assert "known: " in outcome.err


def test_the_table_of_models_has_size_cost_source_and_parity() -> None:
    lines = succeeds("models").out.splitlines()
    rows = succeeds("models", "--json").json
    assert lines[0].split()[:4] == ["name", "task", "parameters", "trainable"]
    for line, row in zip(lines[1:], rows, strict=True):
        assert row["parity"] in ("golden", "published count", "ours")
        assert row["parity"] in line
        assert row["reference"] in line
        if row["needs"]:
            assert f"needs the extra {row['needs']}" in line
        else:
            assert f"{row['parameters']:,}" in line
            assert row["gflop_per_second"] > row["front_end_gflop_per_second"] >= 0
    aasist = next(row for row in rows if row["name"] == "aasist")
    assert (aasist["parameters"], aasist["trainable"]) == (297_866, 297_354)
    assert aasist["gflop_per_second"] == pytest.approx(19.12 / 4.0375, rel=0.01)  # as published


def test_models_of_one_task() -> None:
    for task in ("speaker", "spoof"):
        rows = succeeds("models", "--task", task, "--json").json
        assert {row["task"] for row in rows} == {task}
    outcome = glottis("models", "--task", "speech")
    assert outcome.code == 2
    assert "--task" in outcome.err


def test_a_model_shows_where_it_comes_from_and_what_trains_it() -> None:
    text = succeeds("models", "ecapa_512").out
    for line in (
        "reads checkpoints: wespeaker, speechbrain",
        "recipes:           ecapa.yaml",
        "front end:         kaldi_fbank 80",
        "parity:            golden: reference vectors of importer_wespeaker_ecapa512",
    ):
        assert line in text
    assert "2,315 samples (0.145 s at 16,000 Hz)" in succeeds("models", "aasist").out
    assert "of Glottis only" in succeeds("models", "rawnet2").out


def test_the_scale_of_every_layer_before_training() -> None:
    rows = succeeds("models", "se_resnet_small", "--init", "--json").json
    assert rows[0]["layer"] == "input"
    assert rows[-1]["layer"] == "logits"
    assert all(row["finite"] and row["deviation"] > 0 for row in rows)
    lines = succeeds("models", "se_resnet_small", "--init").out.splitlines()
    assert len(lines) == len(rows) + 3
    assert glottis("models", "--init").code == 2


def test_recipes_are_listed_with_task_and_description() -> None:
    rows = succeeds("recipes", "--json").json
    assert [Path(row["recipe"]).name for row in rows] == [
        path.name for path in sorted((ROOT / "recipes").glob("*.yaml"))
    ]
    assert all(row["task"] in ("speaker", "spoof") and row["description"] for row in rows)
    assert len(succeeds("recipes").out.splitlines()) == len(rows) + 1


def test_recipes_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()  # of a cook
    (tmp_path / "recipes" / "soup.yaml").write_text("salt: 1\n")
    rows = succeeds("recipes", "--json").json
    assert "own_speaker.yaml" in {Path(row["recipe"]).name for row in rows}
    assert all(Path(row["recipe"]).is_file() for row in rows)
