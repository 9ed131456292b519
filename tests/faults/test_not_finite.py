"""NaN and infinity: the step changes nothing, is counted, and the run stays what it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from glottis.report.history import read_metrics
from glottis.train.checkpoint import read_weights
from helpers.faults import Call, Findings, Lab, fault, same, weights

OFF: list[Call] = [
    ("unguarded", "every_step_counts_as_finite"),
    ("unguarded", "nobody_looks_for_bad_numbers"),
]
MODULE = "encoder.2.conv2"
NORM = "encoder.2.norm"
UPDATE = "the check: each step counts as finite and its update is made"
LOOKED = "the check, and the look at weights and buffers"


def transient(lab: Lab, guarded: bool, call: Call, **changes: Any) -> Findings:
    """Step 3 is spoiled; the checkpoint after it must be the one before it."""
    folder = lab.new()
    ending = lab.train(folder, before=[call, *([] if guarded else OFF)], changes=changes)
    run = folder / "run"
    told = "1 step(s) were not finite and changed nothing; the first was step 3"
    made = weights(run)
    kept = ending.code == 0 and unmoved(run) and finite(run)
    again = lab.train(folder, "--resume", str(at(run, 3)), changes=changes) if kept else ending
    return Findings(
        detected=skipped(run, 3) == 1,
        explained=ending.says(told),
        kept=kept,
        resumed=kept and again.code == 0 and weights(run) == made,
        said=ending.lines(told),
    )


def at(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def skipped(run: Path, step: int) -> float:
    """How many steps were not finite in the line of metrics of a step."""
    return sum(r.get("train/skipped_steps", 0) for r in read_metrics(run) if r["step"] == step)


def unmoved(run: Path) -> bool:
    """Whether step 3 left weights, buffers, moments and the schedule as step 2 had."""
    return same(run, run, 2, of=3)


def finite(run: Path) -> bool:
    """Whether all that the run ends with is finite."""
    found = read_weights(run / "checkpoints" / "latest").values()
    return all(bool(torch.isfinite(value).all()) for value in found)


@fault(
    "NaN in a batch",
    injected="a hook makes what the network is given of one clip NaN, in step 3",
    does="skips the step, counts it and says so",
    kept="weights, buffers, moments and schedule, bit for bit; a resume from there is exact",
    without=UPDATE,
    breaks=("detected", "explained", "kept"),
)
def test_batch(lab: Lab, guarded: bool) -> Findings:
    return transient(lab, guarded, ("poison", "batch", 3, 1))


@fault(
    "NaN in activations",
    injected="a hook multiplies the output of a module by NaN, in step 3",
    does="the same",
    kept="the same",
    without=UPDATE,
    breaks=("detected", "explained", "kept"),
)
def test_activations(lab: Lab, guarded: bool) -> Findings:
    return transient(lab, guarded, ("poison", "activation", 3, MODULE))


@fault(
    "NaN in a gradient",
    injected="a hook multiplies a gradient by NaN, in step 3; the loss is finite",
    does="the same",
    kept="the same",
    without=UPDATE,
    breaks=("detected", "explained", "kept"),
)
def test_gradient(lab: Lab, guarded: bool) -> Findings:
    return transient(lab, guarded, ("poison", "gradient", 3, f"{MODULE}.weight"))


@fault(
    "infinity in fp16",
    injected="a hook multiplies the output of a module by 1e30 in step 3, `train.precision=fp16`",
    does="the same, and halves the loss scale",
    kept="the same",
    without=UPDATE,
    breaks=("detected", "explained", "kept"),
)
def test_half_precision(lab: Lab, guarded: bool) -> Findings:
    call = ("poison", "activation", 3, MODULE, 1e30)
    found = transient(lab, guarded, call, train__precision="fp16")
    lines = read_metrics(lab.folder / f"{lab.count:03d}" / "run")
    scales = {
        line["step"]: line["train/loss_scale"] for line in lines if "train/loss_scale" in line
    }
    return replace(found, detected=found.detected and scales[3] == scales[2] / 2)


@fault(
    "NaN in a weight",
    injected="one number of a parameter is overwritten with NaN before step 3, and stays so",
    does="skips the step, names the weight, goes back to the last good checkpoint and on",
    kept="all but the steps since that checkpoint; a resume from it continues bit for bit",
    without=LOOKED,
    breaks=("detected", "explained", "kept"),
)
def test_weight(lab: Lab, guarded: bool) -> Findings:
    call = ("poison", "weight", 3, f"{MODULE}.weight")
    return remedied(lab, guarded, call, f"weights of 'network.{MODULE}.weight'")


@fault(
    "NaN in batch-norm statistics",
    injected="one number of a running variance is overwritten with NaN before step 3",
    does="skips the step, names the buffer and puts it back from the last checkpoint",
    kept="all weights and moments; a resume from that checkpoint continues bit for bit",
    without=LOOKED,
    breaks=("detected", "explained", "kept"),
)
def test_statistics(lab: Lab, guarded: bool) -> Findings:
    call = ("poison", "statistics", 3, f"{NORM}.running_var")
    return remedied(lab, guarded, call, f"buffers of 'network.{NORM}.running_var'")


@fault(
    "a module whose output is infinite",
    injected="a parameter is multiplied by 3e38 before step 3; `nonfinite.action=stop`",
    does="names the module, keeps a bundle and stops; `glottis replay` finds the same place",
    kept="the checkpoints before; `--resume` from that of step 2 continues bit for bit",
    without=LOOKED,
    breaks=("detected", "explained"),
)
def test_module(lab: Lab, guarded: bool) -> Findings:
    folder = lab.new()
    call = ("poison", "larger", 3, f"{NORM}.weight", 3e38)
    stops = {"nonfinite__action": "stop", "train__skipped_budget": 1}
    ending = lab.train(folder, before=[call, *([] if guarded else OFF)], changes=stops)
    run = folder / "run"
    told = f"first not finite: output of 'network.{NORM}'"
    bundles = sorted(run.glob("nonfinite-*"))
    played = lab.glottis("replay", str(bundles[0])) if bundles else ending
    again = lab.train(folder, "--resume", str(at(run, 2)), changes=stops)
    return Findings(
        detected=ending.calm and bool(bundles),
        explained=ending.says(told) and played.code == 0 and played.says("the same place"),
        kept=same(run, lab.whole(), 2, of=2),
        resumed=again.code == 0 and same(run, lab.whole()),
        said=ending.lines(told),
    )


def remedied(lab: Lab, guarded: bool, call: Call, told: str) -> Findings:
    """The run goes on from the checkpoint of step 2 and ends with finite numbers."""
    folder = lab.new()
    ending = lab.train(folder, before=[call, *([] if guarded else OFF)])
    run = folder / "run"
    lines = [line for line in read_metrics(run) if line.get("event") == "roll back"]
    detected = skipped(run, 3) == 1 and len(lines) == 1
    kept = ending.code == 0 and same(run, lab.whole(), 2, of=2) and finite(run)
    again = lab.train(folder, "--resume", str(at(run, 2)))
    return Findings(
        detected=detected,
        explained=ending.says(f"first not finite: {told}"),
        kept=kept,
        resumed=again.code == 0 and same(run, lab.whole()),
        said=ending.lines(f"first not finite: {told}"),
    )
