"""A step that was not finite, in a folder: enough to see it again anywhere.

RUN/nonfinite-00000123/   recipe.yaml        of the phase
                          task.safetensors   weights and buffers of network and loss
                          part.safetensors   what the network heard, labels, mixup, the teacher
                          report.json        what was found, the clips, the last 50 steps
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from glottis.config import to_yaml
from glottis.data.batch import Part
from glottis.errors import ModelError
from glottis.files import atomic_path, write_json, write_text
from glottis.models import build_model, read_state
from glottis.train.adapters import add_adapters
from glottis.train.components import make_head
from glottis.train.forensics import Finding, examine_inputs
from glottis.train.precision import Precision
from glottis.train.recipe import Recipe, load_recipe
from glottis.train.runtime import in_fp32, pick_device, prepare_network
from glottis.train.task import Inputs, Task
from glottis.train.terms import Imitation, Reconstruction

FORMAT = 1
_REPORT, _TASK, _PART = "report.json", "task.safetensors", "part.safetensors"


@dataclass(frozen=True)
class Replay:
    """What was found in the run, and what a replay finds."""

    step: int
    before: Finding
    now: Finding

    @property
    def reproduced(self) -> bool:
        """Whether it is the same place."""
        return (self.before.where, self.before.name) == (self.now.where, self.now.name)


def write_bundle(
    folder: Path,
    recipe: Recipe,
    task: Task,
    part: Part,
    inputs: Inputs,
    precision: Precision,
    report: dict[str, Any],
) -> None:
    """Everything about a bad part of a step.  report: finding, utterances, step, rank, history."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "recipe.yaml", to_yaml(recipe))
    _save(folder / _TASK, task.state_dict())
    tensors = {"wave": inputs.wave, "num_samples": part.num_samples, "labels": part.labels}
    if inputs.features is not None:
        tensors["features"] = inputs.features
    if inputs.mixed is not None:
        tensors["partner"], tensors["share"] = inputs.mixed
    for term in task.terms:
        if isinstance(term, Imitation):
            tensors["taught"] = term.targets(part.rows)
    _save(folder / _PART, tensors)
    write_json(
        folder / _REPORT,
        {
            "format": FORMAT,
            "seed": task.seed,
            "batch_step": part.step,
            "group": part.group,
            "scale": float(precision.scale),
            "classes": list(task.label_map),
            "margin": getattr(task.head, "margin", None),
            **report,
        },
    )


def replay(folder: Path) -> Replay:
    """Run the step of a bundle once more, with every module watched."""
    try:
        report = json.loads((folder / _REPORT).read_text())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} is no bundle of a step that was not finite: {error}",
            fix="give a folder such as runs/x/nonfinite-00000123",
        ) from error
    if report["format"] > FORMAT:
        raise ModelError(
            f"{folder} has format {report['format']}; this Glottis reads up to {FORMAT}",
            fix="update Glottis",
        )
    state, tensors = read_state(folder / _TASK), read_state(folder / _PART)
    recipe = load_recipe(folder / "recipe.yaml")
    device = pick_device("auto" if recipe.train.precision != "fp32" else "cpu")
    task = _task(recipe, report, state, device)
    precision = Precision(recipe.train.precision, device)
    precision.scale.fill_(report["scale"])
    moved = {name: value.to(device) for name, value in tensors.items()}
    mixed = (moved["partner"], moved["share"]) if "partner" in moved else None
    part = Part(
        moved["wave"],
        moved["num_samples"],
        moved["labels"],
        torch.arange(len(moved["wave"]), device=device),
        step=report["batch_step"],
        group=report["group"],
    )
    if recipe.reconstruction is not None:
        task.terms = [Reconstruction(recipe.reconstruction)]
    if recipe.distillation is not None and "taught" in moved:
        imitation = Imitation(recipe.distillation, moved["taught"].__getitem__)
        task.terms = [*task.terms, imitation]
    torch.manual_seed(report["torch_seed"])
    inputs = Inputs(moved["wave"], moved.get("features"), mixed)
    found = examine_inputs(task, inputs, part, precision, report["utterances"])
    return Replay(report["step"], _read(report["finding"]), found)


def _task(recipe: Recipe, report: dict[str, Any], state: dict[str, Tensor], device: Any) -> Task:
    classifier = report["classifier"]
    model = build_model(recipe.model, recipe.features, classifier=classifier)
    if recipe.adapters is not None:
        add_adapters(model, recipe.adapters, seed=0)  # all values are replaced below
    prepare_network(model, recipe.runtime, device)
    head: Any = make_head(recipe, model, len(report["classes"]))
    task = Task(model, head.to(device), report["classes"], report["seed"])
    task.load_state_dict(state)
    if report.get("margin") is not None and hasattr(head, "set_margin"):
        head.set_margin(report["margin"])
    for name in report["in_fp32"]:
        in_fp32(task.get_submodule(name))
    task.free(report["parts"])
    return task.train()


def _read(finding: dict[str, Any]) -> Finding:
    return Finding(**{**finding, "clips": tuple(finding["clips"])})


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    # clones: tensors that share memory are unknown to the format
    apart = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(apart))
