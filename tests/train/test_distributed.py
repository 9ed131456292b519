"""Two gloo processes with batch b/2 each do what one process with batch b does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from glottis.config import to_yaml
from glottis.report.history import read_metrics
from glottis.train import train_recipe
from glottis.train.distributed import SharedBatchNorm, share_batch_norms
from helpers.tones import merged, recipe, speaker_tree, spoof_tree, write_corpus

SGD = {"name": "sgd", "rate": 1e-3, "momentum": 0.9}
NO_DROPOUT = {
    **{"model__attention_dropout": 0.0, "model__pool_dropout": 0.0},
    **{"model__branch_dropout": 0.0, "model__head_dropout": 0.0},
}
GROUPED = {
    **{"batch": {"speakers": 4, "utterances": 2}, "loss": {"name": "angular_prototypical"}},
}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "flat": (speaker_tree, {}),
    "grouped": (speaker_tree, GROUPED),
    "class weights": (
        spoof_tree,
        {**NO_DROPOUT, "loss": {"name": "weighted_cross_entropy", "class_weights": [0.1, 0.9]}},
    ),
}


def launch(path: Path, out: Path, processes: int) -> str:
    """Train in several processes; returns what they said."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes), "-m", "glottis"),
        *("train", str(path), "--out", str(out)),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(tones: Path, tmp_path: Path, case: str) -> None:
    make, changes = CASES[case]
    tree = make(tones, train__steps=2, optim=SGD, train__clip_norm=1.0, log__every_steps=1)
    tree = merged(tree, changes)
    tree["evaluate"]["every_steps"] = 2
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(recipe(tree)))
    one, two = tmp_path / "one", tmp_path / "two"
    train_recipe(recipe(tree), one)
    launch(path, two, 2)
    files = [f / "checkpoints" / "latest" / "model.safetensors" for f in (one, two)]
    a, b = (load_file(f) for f in files)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)
    losses = [[r["train/loss"] for r in read_metrics(f) if "train/loss" in r] for f in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    eers = [[r["dev/eer"] for r in read_metrics(f) if "dev/eer" in r] for f in (one, two)]
    assert eers[0] == pytest.approx(eers[1], abs=0.02)


def test_two_processes_with_a_teacher_equal_one(tmp_path: Path) -> None:
    """Relational: a clip is compared with those of both processes (3 and 3, at last 1 and 2)."""
    tones = write_corpus(tmp_path / "tones", train=5, clips=3)
    slow = SGD | {"rate": 1e-5}  # rounding does not grow from step to step
    tree = speaker_tree(tones, train__steps=3, optim=slow, evaluate={})
    tree = merged(tree, {"log__every_steps": 1, "batch__size": 6, "data__drop_last": False})
    train_recipe(recipe(merged(tree, {"train__steps": 1})), tmp_path / "teacher")
    teacher = {"teacher": str(tmp_path / "teacher"), "kind": "relational", "weight": 30.0}
    tree = merged(tree, {"train__steps": 3, "seed": 6, "distillation": teacher})
    path, one, two = tmp_path / "recipe.yaml", tmp_path / "one", tmp_path / "two"
    path.write_text(to_yaml(recipe(tree)))
    train_recipe(recipe(tree), one)
    launch(path, two, 2)
    taught = [load_file(next(f.glob("teacher-*.safetensors")))["outputs"] for f in (one, two)]
    torch.testing.assert_close(*taught, rtol=1e-4, atol=1e-5)
    shares = ("share_loss", "share_distillation")
    for key in ("loss", "loss_distillation", "loss_total", "grad_norm", *shares):
        lines = [[r[f"train/{key}"] for r in read_metrics(f)] for f in (one, two)]
        assert len(lines[0]) == 3
        assert lines[0] == pytest.approx(lines[1], rel=1e-3)


SPOILED = """
import os, sys
import torch
from glottis.train import train_recipe
from glottis.train.recipe import load_recipe
from glottis.train.task import Task
from pathlib import Path

mine = os.environ["RANK"] == "0"
inputs, head = Task.inputs, Task._head_loss

def spoiled_inputs(self, part):
    found, bad = inputs(self, part), float("nan")
    if not (mine and self.training):
        return found
    return found._replace(wave=found.wave * bad, features=found.features * bad)

def spoiled_loss(self, *given):
    found = head(self, *given)
    return found._replace(loss=found.loss * float("nan")) if mine and self.training else found

if sys.argv[3] == "waves":
    Task.inputs = spoiled_inputs
else:
    Task._head_loss = spoiled_loss
try:
    train_recipe(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]))
except Exception as error:
    print(error, flush=True)
os._exit(0)  # the other has nothing to wait for
"""


@pytest.mark.parametrize(("where", "says"), [("waves", "waves"), ("loss", "loss of 'AamSoftmax'")])
def test_what_goes_wrong_in_one_process_is_named_in_both(
    where: str, says: str, tones: Path, tmp_path: Path
) -> None:
    """Both look for it together: inside the network each waits for the other."""
    script, path = tmp_path / "spoiled.py", tmp_path / "recipe.yaml"
    script.write_text(SPOILED)
    changes = {"train__skipped_budget": 0, "log__every_steps": 1, "evaluate": {}}
    path.write_text(to_yaml(recipe(speaker_tree(tones, train__steps=2, **changes))))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *(str(script), str(path), str(tmp_path / "run"), where),
    ]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=one_thread, timeout=300)
    assert done.stdout.count(f"first not finite: {says}") == 2, done.stdout + done.stderr[-3000:]


def test_one_process_reports_and_hears_of_every_broken_file(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "tones")
    broken = [f"s{speaker:02d}_{clip}_bonafide" for speaker in range(6) for clip in (0, 2)]
    for name in broken:  # half of the clips: each process meets some
        (root / f"{name}.wav").write_bytes(b"this is not audio")
    tree = speaker_tree(root, train__steps=3, log__every_steps=2)
    tree["evaluate"]["every_steps"] = 3
    path, out = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(to_yaml(recipe(tree)))
    said = launch(path, out, 2)
    records = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(record["utterance"] for record in records) == broken
    for name in broken:
        assert said.count(f"{name} cannot be read and is left out") == 1
    assert said.count("[P8]") == 1


def test_a_shared_batch_norm_is_a_batch_norm_on_one_process() -> None:
    net = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.BatchNorm1d(3))
    net[1].weight.requires_grad_(False)
    x = torch.randn(4, 2, 9, generator=torch.Generator().manual_seed(1))
    before = net(x)
    share_batch_norms(net)
    assert isinstance(net[1], SharedBatchNorm)
    assert not net[1].weight.requires_grad
    net[1].running_mean.zero_()
    torch.testing.assert_close(net(x), before)
