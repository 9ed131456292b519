"""Kill it at any moment, with any number of workers: the finished weights are the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.config import to_yaml
from glottis.errors import ConfigError, ModelError
from glottis.report.history import read_metrics
from glottis.train import train_recipe
from glottis.train.checkpoint import load_state
from helpers.tones import recipe, speaker_tree, spoof_tree

# Imports once, then forks for every attempt: what is killed is the training, not the start-up.
# "workers last": the attempt kills itself before call number `last` that its first save makes to
# the file system (three files with fsync, rename, fsync; then 10 fsync, 11 rename, 12 fsync, and
# 13 the link); 0 = it does not.
ATTEMPTS = """
import itertools, os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from glottis.train import load_recipe, train_recipe
from glottis.train.checkpoint import CheckpointFolder
import glottis.models, glottis.losses
recipe, out = Path(sys.argv[1]), Path(sys.argv[2])
save = CheckpointFolder.save

def mortal(last):
    calls = itertools.count(1)
    def counted(call):
        def counting(*words):
            if next(calls) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*words)
        return counting
    def saving(*words, **options):
        os.fsync, os.replace, os.rename = map(counted, (os.fsync, os.replace, os.rename))
        return save(*words, **options)
    return saving

for line in sys.stdin:
    workers, last = line.split()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        if last != "0":
            CheckpointFolder.save = mortal(int(last))
        overrides = [f"data.workers={workers}", f"data.prefetch={1 + int(workers)}"]
        train_recipe(load_recipe(recipe, overrides), out, resume=True)
        os._exit(0)
    try:
        os.setpgid(child, child)  # in both: whoever comes first
    except OSError:
        pass
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


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


def test_ten_kills_at_random_moments_change_no_bit(tones: Path, tmp_path: Path) -> None:
    tree = spoof_tree(
        tones,
        train__steps=60,
        checkpoint__every_steps=2,
        checkpoint__keep=1,
        evaluate__every_steps=20,
        augment=[{"name": "gain", "gain_db": [-6.0, 6.0]}],
        batch__size=4,
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(recipe(tree)))
    torch.set_num_threads(1)
    train_recipe(recipe(tree), tmp_path / "whole")

    out = tmp_path / "killed"
    moments = random.Random(4)
    said = (tmp_path / "said.txt").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-c", ATTEMPTS, str(path), str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def answer() -> int:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (tmp_path / "said.txt").read_text()
        return int(line)

    def attempt(workers: int, last: int = 0) -> int:
        assert process.stdin is not None
        process.stdin.write(f"{workers} {last}\n")
        process.stdin.flush()
        return answer()

    in_save = iter((2, 8, 11, 13))  # in the weights, in the state, before the rename, the link
    kills = 0
    for number in range(10):
        last = next(in_save) if number % 3 == 0 else 0
        child = attempt(number % 3, last)
        if not last:
            # let it make something first, so that ten attempts get somewhere
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and not list(out.glob("checkpoints/step-*")):
                time.sleep(0.01)
            time.sleep(moments.uniform(0.05, 0.6))
            kills += not (out / "finished.json").exists()
            os.killpg(child, signal.SIGKILL)
        assert answer() == signal.SIGKILL, (tmp_path / "said.txt").read_text()
        if last:
            kills += 1
            assert last > 11 or list(out.glob("checkpoints/.step-*.tmp"))
    attempt(2)
    status = answer()
    process.stdin.close()
    process.stdout.close()
    process.wait()
    said.close()
    assert status == 0, (tmp_path / "said.txt").read_text()
    assert kills == 10, "the run was too short to be killed ten times"
    assert weights(out) == weights(tmp_path / "whole")
    assert weights(out, "best") == weights(tmp_path / "whole", "best")
    assert not list(out.glob("checkpoints/.*.tmp"))


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
