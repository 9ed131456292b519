"""Values that are not finite, put into a run from outside before one of its steps.

Transient ones are gone after the step; `weight`, `larger` and `statistics` stay until something
repairs them.
MODULE is a name in the network, as in `torch.nn.Module.get_submodule`.
"""

from __future__ import annotations

from typing import Any

import torch

from helpers.happens import before_step

NAN = float("nan")


def batch(number: int, item: int) -> None:
    """What the network is given of one clip of the batch is NaN."""

    def act(task: Any, *_: Any) -> None:
        def poisoned(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            hook.remove()
            wave = inputs[0].clone()
            wave[item] = NAN
            return (wave, *inputs[1:])

        hook = task.embedder.network.register_forward_pre_hook(poisoned)

    before_step(number, act)


def activation(number: int, module: str, factor: float = NAN) -> None:
    """The output of a module, multiplied: by NaN, or by what overflows in half precision."""

    def act(task: Any, *_: Any) -> None:
        def poisoned(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            hook.remove()
            return output * factor

        hook = task.embedder.network.get_submodule(module).register_forward_hook(poisoned)

    before_step(number, act)


def gradient(number: int, parameter: str) -> None:
    """One gradient is NaN; the loss is as good as ever."""

    def act(task: Any, *_: Any) -> None:
        def poisoned(value: torch.Tensor) -> torch.Tensor:
            hook.remove()
            return value * NAN

        hook = task.embedder.network.get_parameter(parameter).register_hook(poisoned)

    before_step(number, act)


def weight(number: int, parameter: str) -> None:
    """One number of a parameter is NaN, and stays so."""

    def act(task: Any, *_: Any) -> None:
        with torch.no_grad():
            task.embedder.network.get_parameter(parameter).view(-1)[0] = NAN

    before_step(number, act)


def larger(number: int, parameter: str, factor: float) -> None:
    """A parameter is multiplied: still finite, but what it is multiplied with will not be."""

    def act(task: Any, *_: Any) -> None:
        with torch.no_grad():
            task.embedder.network.get_parameter(parameter).mul_(factor)

    before_step(number, act)


def statistics(number: int, buffer: str) -> None:
    """One number of the running statistics is NaN, and stays so; the loss does not show it."""

    def act(task: Any, *_: Any) -> None:
        task.embedder.network.get_buffer(buffer)[0] = NAN

    before_step(number, act)
