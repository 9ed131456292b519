"""How loud a network is, layer by layer, before it has learned anything.

A layer whose output is a thousand times smaller or larger than its input learns slowly or not at
all; the contract tests keep every registered network within bounds.  In a table the culprit shows:

    for scale in initial_scales(create_model("aasist", seed=0)):
        print(scale.layer, scale.deviation)

Shapes: B batch, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glottis.models.system import Model
from glottis.rng import generator, torch_generator

CLIPS = 4
HARMONICS = 24


@dataclass(frozen=True)
class Scale:
    """One output of one layer.

    layer: its name in the network, ``input`` for what the network is given, ``embedding`` and
    ``logits`` for what it gives.  kind: class of the layer.  deviation: standard deviation of all
    values.  finite: whether all of them are.
    """

    layer: str
    kind: str
    deviation: float
    finite: bool


def initial_scales(
    model: Model, wave: Tensor | None = None, *, seconds: float = 1.0
) -> list[Scale]:
    """The scale of every layer with parameters, in the order of computation, in training mode.

    Where the part around a layer computes with the layer's parameters itself, the part is shown.

    wave: (B, S); default: `speechlike` clips of ``seconds``, or of the model's minimum.  Statistics
    that the pass moves are put back.
    """
    if wave is None:
        samples = max(round(seconds * model.sample_rate), model.min_samples)
        wave = speechlike(CLIPS, samples, model.sample_rate)
    found: list[Scale] = []

    def note(layer: str, kind: str, output: Any) -> None:
        if isinstance(output, tuple):
            output = output[0]  # of a recurrent layer: what it gives at each step
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel() > 1:
            values = output.detach().double()
            finite = bool(torch.isfinite(values).all())
            found.append(Scale(layer, kind, float(values.std()), finite))

    def listener(layer: str) -> Any:
        return lambda module, _inputs, output: note(layer, type(module).__name__, output)

    hooks = [
        module.register_forward_hook(listener(layer))
        for layer, module in model.network.named_modules()
        if layer and any(True for _ in module.parameters()) and type(module) is not nn.Sequential
    ]
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    was_training = model.training
    try:
        model.train()
        drawn = model.draw(generator(0, "initial scales"))
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.set_state(torch_generator(0, "dropout").get_state())
            x = wave if model.frontend is None else model.frontend(wave)
            note("input", "front end" if model.frontend is not None else "waveform", x)
            output = model.network(x, **drawn)
    finally:
        for hook in hooks:
            hook.remove()
        model.load_state_dict(kept)
        model.train(was_training)
    named = output if isinstance(output, tuple) else (output,)
    for name, value in zip(getattr(output, "_fields", ("embedding",)), named, strict=True):
        note(name, name, value)
    called = {scale.layer for scale in found}
    own = {layer for layer, module in model.network.named_modules() if _has_own(module)}
    unseen = {layer.rpartition(".")[0] for layer in own - called}
    shown = own | unseen | {"input", *getattr(output, "_fields", ("embedding",))}
    return [scale for scale in found if scale.layer in shown]


def _has_own(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def silent_or_loud(scales: list[Scale], lowest: float, highest: float) -> list[Scale]:
    """Those that are not finite, or not within these multiples of the input's deviation."""
    source = next(scale.deviation for scale in scales if scale.layer == "input")
    return [
        scale
        for scale in scales
        if not scale.finite or not lowest * source <= scale.deviation <= highest * source
    ]


def speechlike(clips: int, num_samples: int, sample_rate: int) -> Tensor:
    """(B, S) harmonics of a wandering pitch under syllables of a quarter second, and some noise."""
    rng = generator(0, "speechlike", clips, num_samples, sample_rate)
    time = np.arange(num_samples) / sample_rate
    waves = []
    for _ in range(clips):
        pitch = rng.uniform(90, 230) * (
            1 + 0.1 * np.sin(2 * np.pi * 1.7 * time + rng.uniform(0, 6))
        )
        phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
        offsets = rng.uniform(0, 2 * np.pi, HARMONICS)
        voice = sum(np.cos(k * phase + offsets[k - 1]) / k for k in range(1, HARMONICS + 1))
        syllables = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * time + rng.uniform(0, 6))
        waves.append(0.05 * (voice * syllables + 0.02 * rng.standard_normal(num_samples)))
    return torch.from_numpy(np.stack(waves).astype(np.float32))
