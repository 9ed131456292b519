"""Too many steps were not finite: why, and back to the last good checkpoint."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from glottis.errors import TrainingStopped
from glottis.train import distributed
from glottis.train.bundle import write_bundle
from glottis.train.checkpoint import load_state, read_weights, step_of, writing
from glottis.train.forensics import Finding, examine
from glottis.train.guards import Verdict
from glottis.train.recovery import take_back
from glottis.train.runtime import in_fp32
from glottis.train.step import step_seed

if TYPE_CHECKING:
    from pathlib import Path

    from glottis.train.engine import Trainer
    from glottis.train.state import State

log = logging.getLogger(__name__)


def remedy(trainer: Trainer, state: State, verdict: Verdict) -> None:
    """Name the first bad number, write a bundle, and take the last good checkpoint back, or stop.

    Weights, moments, buffers and the schedule become those of the checkpoint; steps and data go on.
    Buffers alone (batch-norm statistics) are put back whatever the policy: no step used them.
    Data that is not finite ends the run: no rate helps against it.
    """
    step = verdict.bad_step
    assert step is not None
    finding, bundle = _explained(trainer, state, step)
    again = f"; see it again: glottis replay {bundle}"
    good = _last_good(trainer, verdict.since)
    saved = "the checkpoints are intact" if good is not None else "nothing was saved yet"
    harmless = finding.where == "buffers"
    hopeless = finding.where in ("waves", "features")
    if good is None or hopeless or (verdict.action == "stop" and not harmless):
        trainer.run.log(state.step, _event("stopped", verdict, finding, bundle, "the run ends"))
        raise TrainingStopped(
            f"{verdict.why.removeprefix('[H1] ')}; step {step}, run again: {finding.text()}",
            why="skipping more would train on a biased part of the data",
            fix=f"{_advice(finding)}{again}; {saved}",
            rule="H1",
        )
    if harmless:
        done = _take_back_buffers(trainer, good)
    else:
        done = take_back(trainer, state, good, moments=True)
    if finding.where == "output" and trainer.precision.name != "fp32":
        in_fp32(trainer.task.get_submodule(finding.module))
        state.in_fp32 = [*state.in_fp32, finding.module]
        done += f"; '{finding.name}' goes on in float32"
    elif finding.where not in ("buffers", "weights"):  # no step of ours writes such values there
        trainer.optim.lower(verdict.lower)
        done += f"; the network goes on at {trainer.optim.lowered:g} of its rate"
    log.warning("%s; step %d: %s. %s%s", verdict.why, step, finding.text(), done, again)
    trainer.run.log(state.step, _event("roll back", verdict, finding, bundle, done))


def _event(
    what: str, verdict: Verdict, finding: Finding, bundle: Path, done: str
) -> dict[str, Any]:
    why = f"{verdict.why}; {finding.text()}"
    return {"event": what, "why": why, "done": done, "bundle": str(bundle)}


def _advice(finding: Finding) -> str:
    return {
        "weights": "something outside the step has written to the weights",
        "buffers": "something outside the step has written to the buffers",
        "waves": "look at these clips and at the augmentations",
        "features": "look at these clips and at the front end",
        "nothing": "the batch alone does not do it: lower optim.rate",
    }.get(finding.where, "train.precision=fp32 or a lower optim.rate")


def _explained(trainer: Trainer, state: State, step: int) -> tuple[Finding, Path]:
    """The finding of all processes, and where the bundle of this one is."""
    phase, device = trainer.phase, trainer.precision.device
    folder = trainer.run.folder / f"nonfinite-{step:08d}"
    if distributed.rank():
        folder = folder.with_name(f"{folder.name}-rank{distributed.rank()}")
    number = step - 1 - state.phase_start
    batch = trainer.loader.one(number).to(device)
    seed = step_seed(phase.seed, step - 1, distributed.rank())
    torch.manual_seed(seed)
    finding = Finding("nothing")
    for part in batch.split(trainer.pieces.count):
        names = [trainer.loader.dataset.utterances[row] for row in part.rows.tolist()]
        finding, inputs = examine(trainer.task, part, trainer.precision, names)
        if distributed.any_true(finding.where != "nothing"):
            break
    report = {
        "step": step,
        "run_id": trainer.run.run_id,
        "finding": asdict(finding),
        "text": finding.text(),
        "utterances": names,
        "torch_seed": seed,
        "classifier": getattr(type(trainer.task.head), "classifier", "linear"),
        "parts": list(trainer.task.patterns),
        "in_fp32": state.in_fp32,
        "last_steps": trainer.window.last_steps(),
        "command": f"glottis replay {folder}",
    }
    with writing(f"the bundle of step {step}"):
        write_bundle(folder, trainer.recipe, trainer.task, part, inputs, trainer.precision, report)
    found = distributed.gather_lists([finding])
    return next((one for one in found if one.where != "nothing"), finding), folder


def _last_good(trainer: Trainer, since: int) -> Path | None:
    """The newest checkpoint from before the first bad step whose weights are all finite.

    If there is none from before, the newest at all.
    """
    distributed.barrier()  # the first process may still be writing
    made = trainer.run.checkpoints.complete()[::-1]
    early = [folder for folder in made if step_of(folder) < since]
    for folder in early or made:
        if all(bool(torch.isfinite(t).all()) for t in read_weights(folder).values()):
            return folder
    return None


def _take_back_buffers(trainer: Trainer, folder: Path) -> str:
    saved = load_state(folder, trainer.precision.device)
    network = saved.get("network") or read_weights(folder)  # before a moving average
    kept = {f"embedder.{name}": value for name, value in network.items()}
    kept |= {f"head.{name}": value for name, value in saved["head"].items()}
    restored = []
    for name, buffer in trainer.task.named_buffers():
        if buffer.is_floating_point() and name in kept and not bool(torch.isfinite(buffer).all()):
            buffer.copy_(kept[name])
            restored.append(name.removeprefix("embedder."))
    return f"{', '.join(restored)} restored from the checkpoint of step {saved['step']}"
