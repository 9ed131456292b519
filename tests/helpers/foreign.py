"""Recipes with keys of other trainers, and what the command line says about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glottis.config import Config
from helpers.cli import glottis
from helpers.tones import speaker_tree, spoof_tree


def tree(task: str) -> dict[str, Any]:
    """A recipe without any foreign key; its files do not exist."""
    return {"speaker": speaker_tree, "spoof": spoof_tree}[task](Path("nowhere"))


def refused(path: Path, *overrides: str) -> str:
    """What the command line says about a recipe that it refuses."""
    outcome = glottis("train", path, *overrides, "--out", path.parent / "run")
    assert outcome.code == 2, outcome.err
    assert "Traceback" not in outcome.err
    assert not (path.parent / "run").exists()
    return outcome.err


def value_of(recipe: Config, path: str) -> Any:
    """The value at a dotted path of a recipe."""
    here: Any = recipe
    for part in path.split("."):
        here = here[int(part)] if part.isdigit() else getattr(here, part)
    return here
