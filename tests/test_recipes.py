"""The recipes that come with Glottis: documented, portable, and every key is read by somebody."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glottis.cli.main import VERBS
from glottis.configfile import read_mapping, read_tree
from glottis.models import create_model, save_model
from glottis.train import load_recipe
from glottis.train.assemble import assemble
from helpers import tiny_ssl
from helpers.tones import write_corpus

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SPEECH = [path for path in RECIPES if path.name.startswith("speech_")]
TONES = [path for path in RECIPES if path not in SPEECH]
ONE_CORE = ["runtime.threads=1", "runtime.device=cpu", "data.workers=0"]


def named(path: Path) -> str:
    return path.stem


def texts(tree: Any) -> Iterator[str]:
    """Every text in a tree."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from texts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from texts(value)
    elif isinstance(tree, str):
        yield tree


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus in the layout of the demo's, small enough for a test."""
    return write_corpus(tmp_path_factory.mktemp("tones"), train=8, clips=6)


def on_tones(path: Path, corpus: Path) -> list[str]:
    """Overrides that put a recipe on the corpus of tones."""
    selection = {"speaker": "trials=trials_dev.txt", "spoof": "protocol=cm.dev.txt"}
    tree = read_tree(path)
    key, _, name = selection[tree["task"]].partition("=")
    grouped = "speakers" in tree["batch"]
    return [
        *(f"data.root={corpus}", f"data.manifest={corpus / 'manifest.csv'}", "data.store=null"),
        *(f"evaluate.{key}={corpus / name}", "data.crop_seconds=0.4"),
        *(["batch.speakers=4", "batch.utterances=2"] if grouped else ["batch.size=8"]),
        *(tiny_encoder(tree["model"]["encoder"]["kind"]) if is_ssl(path) else []),
    ]


def is_ssl(path: Path) -> bool:
    """Whether a recipe builds on the published weights of a self-supervised network."""
    return path.name.startswith("ssl_")


def tiny_encoder(kind: str) -> list[str]:
    """Overrides that put a small random network in its place."""
    sizes = tiny_ssl.architecture(kind)
    return [
        "model.encoder.weights=random",
        *(f"model.encoder.architecture.{key}={value}" for key, value in sizes.items()),
    ]


def test_there_are_recipes_of_every_kind() -> None:
    assert SPEECH
    assert {path.name for path in TONES} >= {"demo_speaker.yaml", "demo_spoof.yaml"}


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_a_recipe_says_what_it_is_and_how_it_is_run(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    (command,) = [line for line in header if line.startswith("# Command: ")]
    words = shlex.split(command.removeprefix("# Command: ").partition(" (")[0])
    assert words[0] == "glottis"
    assert words[1] in VERBS
    if words[1] == "train":
        assert words[2] == f"recipes/{path.name}"
    assert len(header) >= 3  # more than a command: what it is, and what is to be expected
    assert read_mapping(path)["description"]


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_a_recipe_works_on_any_machine(path: Path) -> None:
    for text in texts(read_mapping(path)):
        assert not re.match(r"/|~|[A-Za-z]:\\", text), f"{text} is an absolute path"
    assert "/home/" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SPEECH, ids=named)
def test_a_recipe_loads_as_it_stands(path: Path) -> None:
    assert load_recipe(path).description


def imported(path: Path, folder: Path) -> list[str]:
    """Weights that a user imports first: random ones."""
    tree = read_tree(path)
    if "init" not in tree:
        return []
    save_model(create_model(tree["model"]["name"], seed=1), folder)
    return [f"init={folder}"]


@pytest.mark.parametrize("path", TONES, ids=named)
def test_every_key_has_an_effect_on_tones(path: Path, tones: Path, tmp_path: Path) -> None:
    if is_ssl(path) and not tiny_ssl.INSTALLED:
        pytest.skip("needs the extra 'ssl'")
    words = [*on_tones(path, tones), *ONE_CORE, *imported(path, tmp_path / "weights")]
    outcome = assemble(load_recipe(path, words), tmp_path / "run")  # raises if nothing reads a key
    assert outcome.trainer.phase.steps > 0
    assert outcome.trainer.evaluator is not None
    outcome.trainer.trackers.close()


@pytest.mark.parametrize("path", SPEECH, ids=named)
def test_every_key_has_an_effect_on_speech(
    path: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOTTIS_SHARED", str(shared))
    words = [*ONE_CORE, *imported(path, tmp_path / "weights")]
    outcome = assemble(load_recipe(path, words), tmp_path / "run")
    assert outcome.trainer.phase.steps > 0
    assert outcome.trainer.evaluator is not None
    assert set(outcome.corpus.hashes) >= {"manifest", "train", "selection"}
    outcome.trainer.trackers.close()


def test_a_recipe_for_own_voices_names_what_it_needs() -> None:
    from glottis.errors import ConfigError

    with pytest.raises(ConfigError, match=r"data\.manifest: missing"):
        load_recipe(ROOT / "recipes" / "own_speaker.yaml")
