"""Where did the first number go wrong?  A step is run again with every module watched.

Checked in this order, and the first hit is named: weights and buffers, the waves, the features, the
outputs of modules in the order of the forward pass, the loss, gradients in the order of the
backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from glottis.data.batch import Part
from glottis.train import distributed
from glottis.train.precision import Precision
from glottis.train.step import all_finite
from glottis.train.task import Inputs, Task

SHOWN = 8  # clips that are named


@dataclass(frozen=True)
class Finding:
    """The first thing that was not finite.

    where: "weights", "buffers", "waves", "features", "output", "loss" or "gradient"; "nothing" if
    this time everything was finite.  name: of the tensor or module, as in recipes and inspect.
    module: whose output it was, for Task.get_submodule.  clips: of the part that hold it, where
    that can be told.
    """

    where: str
    name: str = ""
    detail: str = ""
    module: str = ""
    clips: tuple[str, ...] = ()

    def text(self) -> str:
        """One sentence."""
        if self.where == "nothing":
            return "run again, the step is finite"
        of = f" of '{self.name}'" if self.name else ""
        clips = f"; clips: {', '.join(self.clips)}" if self.clips else ""
        return f"first not finite: {self.where}{of} ({self.detail}){clips}"


@dataclass
class _Watch:
    """The first bad output and the first bad gradient."""

    utterances: Sequence[str]
    found: Finding | None = None
    handles: list[Any] = field(default_factory=list)

    def note(self, where: str, tensor: Tensor, name: str, after: str = "") -> None:
        if self.found is None and not _finite(tensor):
            self.found = _finding(where, name, tensor, self.utterances, after)


def poisoned(task: Task) -> Finding | None:
    """The first weight or buffer that is not finite; one wait for the device if there is none."""
    tensors = [t.detach() for t in (*task.parameters(), *task.buffers()) if t.numel()]
    if bool(all_finite(tensors, tensors[0])):
        return None
    for where, named in (("weights", task.named_parameters()), ("buffers", task.named_buffers())):
        for name, tensor in named:
            if tensor.is_floating_point() and not _finite(tensor):
                return Finding(where, _public(name), _count(tensor))
    return None


def examine(
    task: Task, part: Part, precision: Precision, utterances: Sequence[str]
) -> tuple[Finding, Inputs]:
    """Run a part forward and backward and name the first bad number; with what the network heard.

    utterances: (B,) of the items.  Nothing of the task stays changed: buffers are put back and
    gradients removed.
    """
    inputs = task.inputs(part)
    return examine_inputs(task, inputs, part, precision, utterances), inputs


def examine_inputs(
    task: Task, inputs: Inputs, part: Part, precision: Precision, utterances: Sequence[str]
) -> Finding:
    """As `examine`, of augmented inputs."""
    # several processes decide together: each of them waits for the others inside the network
    found = poisoned(task)
    for where, tensor in (("waves", inputs.wave), ("features", inputs.features)):
        if found is None and tensor is not None and not _finite(tensor):
            found = _finding(where, "", tensor, utterances)
    if distributed.any_true(found is not None):
        return found or Finding("nothing")
    buffers = {name: value.clone() for name, value in task.named_buffers()}
    try:
        with torch.compiler.set_stance("force_eager"), _watched(task, utterances) as watch:
            result = task.objective(inputs, part, precision)
            watch.note("loss", result.loss, type(task.head).__name__)
            for name, value in result.extra_stats.items():
                watch.note("loss", value, name.removeprefix("loss_"))
            loss = result.loss if result.extra is None else result.loss + result.extra
            if not distributed.any_true(watch.found is not None):
                (loss * precision.scale).backward()  # type: ignore[no-untyped-call]
        return watch.found or Finding("nothing")
    finally:
        for name, value in task.named_buffers():
            value.copy_(buffers[name])
        for parameter in task.parameters():
            parameter.grad = None


@contextmanager
def _watched(task: Task, utterances: Sequence[str]) -> Iterator[_Watch]:
    watch = _Watch(utterances)

    def after(module: nn.Module, given: Any, output: Any, *, name: str) -> None:
        came = "" if all(_finite(tensor) for tensor in _tensors(given)) else "its input was bad too"
        for tensor in _tensors(output):
            watch.note("output", tensor, name, came)
            if tensor.requires_grad:
                where = f"gradient behind the output of '{_public(name)}'"
                hook = partial(watch.note, where, name="")
                watch.handles.append(tensor.register_hook(hook))  # type: ignore[no-untyped-call]

    for name, module in task.named_modules():
        if name and not any(True for _ in module.children()):
            watch.handles.append(module.register_forward_hook(partial(after, name=name)))
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            hook = partial(watch.note, "gradient", name=name)
            watch.handles.append(parameter.register_hook(hook))  # type: ignore[no-untyped-call]
    try:
        yield watch
    finally:
        for handle in watch.handles:
            handle.remove()


def _finding(
    where: str, name: str, tensor: Tensor, utterances: Sequence[str], after: str = ""
) -> Finding:
    detail = ", ".join(filter(None, (_count(tensor), after)))
    return Finding(where, _public(name), detail, name, _clips(tensor, utterances))


def _public(name: str) -> str:
    """As recipes and inspect call it."""
    return name.removeprefix("embedder.")


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _count(tensor: Tensor) -> str:
    nan, inf = int(torch.isnan(tensor).sum()), int(torch.isinf(tensor).sum())
    if tensor.numel() == 1:
        return str(float(tensor.detach()))
    rest = tensor.detach()[torch.isfinite(tensor)].abs()
    largest = f", the others up to {float(rest.max()):.3g}" if len(rest) else ""
    return f"{nan:,} NaN and {inf:,} infinite of {tensor.numel():,}{largest}"


def _clips(tensor: Tensor, utterances: Sequence[str]) -> tuple[str, ...]:
    """Which items are bad, if the first axis is that of the batch and not all of them are."""
    if tensor.ndim == 0 or len(tensor) != len(utterances) or len(tensor) == 0:
        return ()
    bad = ~torch.isfinite(tensor.detach().reshape(len(tensor), -1)).all(dim=1)
    if bool(bad.all()):
        return ()
    return tuple(utterances[i] for i in torch.nonzero(bad).flatten().tolist()[:SHOWN])
