"""A resumed run ends with the bits of one that was never interrupted.  (Kills: tests/faults.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.errors import ConfigError, ModelError
from glottis.report.history import read_metrics
from glottis.train import train_recipe
from glottis.train.checkpoint import load_state
from helpers.tones import recipe, speaker_tree, spoof_tree


def weights(folder: Path, name: str = "latest") -> bytes:
    return (folder / "checkpoints" / name / "model.safetensors").read_bytes()


@pytest.mark.parametrize("make", [speaker_tree, spoof_tree])
def test_training_in_two_halves_equals_training_in_one(
    tones: Path, tmp_path: Path, make: Any
) -> None:
    tree = make(tones, train__steps=4, checkpoint__every_steps=2, evaluate__every_steps=4)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train_recipe(recipe(tree), whole)
    train_recipe(recipe(tree), halves)
    for path in halves.glob("checkpoints/*"):
        if path.name != "step-00000002" and not path.is_symlink():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    result = train_recipe(recipe(tree), halves, resume=True)
    assert result["steps"] == 4
    assert weights(halves) == weights(whole)
    states = [
        load_state(f / "checkpoints" / "latest", torch.device("cpu")) for f in (whole, halves)
    ]
    for key in ("applied", "step", "best", "best_step"):
        assert states[0][key] == states[1][key]
    one, other = ([r for r in read_metrics(f) if "train/loss" in r] for f in (whole, halves))
    assert [(r["step"], r["train/loss"]) for r in one] == [
        (r["step"], r["train/loss"]) for r in other
    ]


def test_resume_refuses_another_recipe_and_other_data(tones: Path, tmp_path: Path) -> None:
    tree = speaker_tree(tones, train__steps=2, evaluate={}, checkpoint__every_steps=1)
    out = tmp_path / "run"
    train_recipe(recipe(tree), out)
    with pytest.raises(ConfigError, match=r"optim\.rate: 0\.001 -> 0\.5"):
        train_recipe(recipe(speaker_tree(tones, **_same(tree), optim__rate=0.5)), out, resume=True)
    with pytest.raises(ConfigError, match="holds this run already"):
        train_recipe(recipe(tree), out)
    tree["data"]["workers"] = 1  # speed only
    train_recipe(recipe(tree), out, resume=True)


def _same(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: tree[key] for key in ("train", "evaluate", "checkpoint")}


def test_a_checkpoint_of_a_newer_format_is_refused(tones: Path, tmp_path: Path) -> None:
    tree = speaker_tree(tones, train__steps=1, evaluate={}, checkpoint__every_steps=1)
    train_recipe(recipe(tree), tmp_path / "run")
    checkpoint = (tmp_path / "run" / "checkpoints" / "latest").resolve()
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    assert state["glottis"]
    torch.save(state | {"format": 99, "glottis": "9.0"}, checkpoint / "state.pt")
    with pytest.raises(ModelError, match=r"written by Glottis 9\.0"):
        load_state(checkpoint, torch.device("cpu"))
    (checkpoint / "state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="cannot be read"):
        load_state(checkpoint, torch.device("cpu"))
    with pytest.raises(ModelError, match="not a checkpoint to resume from"):
        load_state(tmp_path, torch.device("cpu"))


def test_two_runs_are_bit_identical_and_another_seed_is_not(tones: Path, tmp_path: Path) -> None:
    tree = spoof_tree(tones, train__steps=3, evaluate={}, runtime__deterministic=True)
    for name, changes in (("a", {}), ("b", {}), ("c", {"seed": 6})):
        train_recipe(recipe(tree | changes), tmp_path / name)
    torch.use_deterministic_algorithms(False)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")
