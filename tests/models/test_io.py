"""Saved models: what is in the folder, what comes back, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from glottis.errors import ModelError
from glottis.models import create_model, load_model, read_card, save_model
from glottis.version import __version__

OPTIONS = {"channels": (8, 8), "graph_sizes": (8, 8)}


def change_card(folder: Path, **changes: object) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


def test_a_speaker_model_comes_back_with_its_front_end(tmp_path: Path) -> None:
    model = create_model("resnetse34l", embedding_size=16, features={"num_mels": 24}, seed=3).eval()
    card = save_model(model, tmp_path / "new" / "folder", extra={"step": 7})
    loaded = load_model(tmp_path / "new" / "folder")
    wave = torch.randn(2, 8000) * 0.1
    assert torch.equal(loaded(wave), model(wave))
    assert not loaded.training
    assert card == read_card(tmp_path / "new" / "folder")
    assert card["glottis"] == __version__
    assert card["task"] == "speaker"
    assert card["config"] == {"name": "resnetse34l", "embedding_size": 16, "pooling": "sap"}
    assert card["features"]["num_mels"] == 24
    assert card["sample_rate"] == 16000
    assert card["parameters"] == model.num_parameters
    assert card["extra"] == {"step": 7}
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == [
        "card.json",
        "model.safetensors",
    ]


def test_a_countermeasure_comes_back(tmp_path: Path) -> None:
    model = create_model("aasist", seed=3, **OPTIONS).eval()
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    wave = torch.randn(1, 4000) * 0.1
    assert torch.equal(loaded(wave).logits, model(wave).logits)
    assert loaded.config == model.config


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    save_model(create_model("aasist", **OPTIONS), tmp_path)
    change_card(tmp_path, format=2, glottis="9.0")
    with pytest.raises(ModelError, match=r"written by Glottis 9\.0 in format 2") as caught:
        load_model(tmp_path)
    assert "update Glottis" in str(caught.value)


def test_weights_of_another_model_are_noticed(tmp_path: Path) -> None:
    save_model(create_model("aasist", seed=0, **OPTIONS), tmp_path / "a")
    save_model(create_model("aasist", seed=1, **OPTIONS), tmp_path / "b")
    (tmp_path / "a" / "model.safetensors").write_bytes(
        (tmp_path / "b" / "model.safetensors").read_bytes()
    )
    with pytest.raises(ModelError, match=r"is not the file that card\.json describes"):
        load_model(tmp_path / "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("[]", "is not the card"), ('{"format": 1}', "lacks config")],
)
def test_a_broken_card_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        read_card(tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"card\.json is missing"):
        load_model(tmp_path)


def test_a_failed_write_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = create_model("aasist", seed=0, **OPTIONS)
    save_model(model, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("glottis.files.os.replace", full)
    with pytest.raises(Exception, match="No space left"):
        save_model(create_model("aasist", seed=1, **OPTIONS), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_card_with_an_unknown_option_is_refused(tmp_path: Path) -> None:
    save_model(create_model("aasist", **OPTIONS), tmp_path)
    card = read_card(tmp_path)
    change_card(tmp_path, config={**card["config"], "num_filtres": 3})
    with pytest.raises(Exception, match="did you mean 'num_filters'"):
        load_model(tmp_path)
