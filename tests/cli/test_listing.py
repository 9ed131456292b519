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
