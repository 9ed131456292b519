"""Where the time of a training step goes: an operator trace and the heaviest operators."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from glottis.errors import ConfigError
from glottis.train.assemble import assemble
from glottis.train.recipe import Recipe
from glottis.train.step import step

HEAVIEST = 20


@dataclass(frozen=True)
class Operator:
    """One operator with one set of input shapes, over the active steps.

    self_ms: its own time on the device that computes.  share: percent of all operators.
    """

    name: str
    calls: int
    self_ms: float
    share: float
    shapes: str


@dataclass(frozen=True)
class Profile:
    """The result: mean time of an active step, and the heaviest operators."""

    trace: Path
    step_ms: float
    data_share: float
    operators: tuple[Operator, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"trace": str(self.trace)}


def profile_recipe(
    recipe: Recipe, out: Path, *, wait: int = 1, warmup: int = 1, active: int = 3
) -> Profile:
    """Trace ``active`` steps after ``wait + warmup``; writes ``trace.json`` into ``out``.

    Nothing else is kept: the run folder that the steps need is a temporary one.
    """
    if active < 1 or wait < 0 or warmup < 1:
        raise ConfigError(
            f"a profile of wait {wait}, warmup {warmup} and active {active} steps",
            fix="warmup and active are at least 1: the first recorded step is not like the others",
        )
    out.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="profile-", dir=out))
    try:
        return _profile(recipe, out, scratch, wait, warmup, active)
    finally:
        shutil.rmtree(scratch)


def _profile(
    recipe: Recipe, out: Path, scratch: Path, wait: int, warmup: int, active: int
) -> Profile:
    trainer = assemble(recipe, scratch).trainer
    device = trainer.precision.device
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    trainer.task.train()
    batches = trainer.loader.batches(0, wait + warmup + active)
    waited = busy = 0.0
    with torch.profiler.profile(
        activities=activities,
        schedule=torch.profiler.schedule(wait=wait, warmup=warmup, active=active, repeat=1),
        record_shapes=True,
        with_stack=True,
    ) as profiler:
        for index in range(wait + warmup + active):
            began = time.monotonic()
            batch = next(batches)
            fetched = time.monotonic()
            step(
                trainer.task,
                batch.to(device, non_blocking=trainer.phase.non_blocking),
                trainer.optim,
                trainer.precision,
                pieces=trainer.pieces,
                clip_norm=trainer.phase.clip_norm,
            )
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if index >= wait + warmup:
                waited += fetched - began
                busy += time.monotonic() - began
            profiler.step()  # without it the schedule never advances and there is no trace
    trainer.trackers.close()
    trace = out / "trace.json"
    profiler.export_chrome_trace(str(trace))
    return Profile(
        trace=trace,
        step_ms=1000 * busy / active,
        data_share=waited / busy if busy else 0.0,
        operators=_heaviest(profiler, device),
    )


def _is_python(name: str) -> bool:
    """Whether it is a Python call by its name: some of them are not marked as such."""
    return ".py(" in name or name.startswith(("<built-in ", "nn.Module: "))


def _heaviest(profiler: torch.profiler.profile, device: torch.device) -> tuple[Operator, ...]:
    on_gpu = device.type == "cuda"
    recorded: Any = profiler  # events() has no types
    python = {event.name for event in recorded.events() if event.is_python_function}
    events = [
        (float(e.self_device_time_total if on_gpu else e.self_cpu_time_total) / 1000, e)
        for e in profiler.key_averages(group_by_input_shape=True)
        if not (e.key.startswith("ProfilerStep") or e.key in python or _is_python(e.key))
    ]
    total = sum(ms for ms, _ in events) or 1.0
    events.sort(key=lambda pair: -pair[0])
    return tuple(
        Operator(
            name=event.key,
            calls=event.count,
            self_ms=round(ms, 3),
            share=round(100 * ms / total, 1),
            shapes=str(event.input_shapes),
        )
        for ms, event in events[:HEAVIEST]
    )
