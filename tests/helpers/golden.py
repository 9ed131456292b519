"""Reference vectors: read them, fill a state dict by their recipe, compare at their tolerances."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

OUTPUT = 1e-4
"""relative tolerance of outputs"""
LOSS = 1e-5
"""relative tolerance of losses"""
GRADIENT = 1e-3
"""relative tolerance of gradient norms"""


def read(shared: Path, name: str) -> dict[str, Tensor]:
    """The tensors of ``golden/<name>.safetensors``."""
    return safetensors.torch.load_file(shared / "golden" / f"{name}.safetensors")


def filled_state(shared: Path, model: str, seed: int) -> dict[str, Tensor]:
    """The state dict of ``golden/state_dicts/<model>.tsv`` with the recipe of golden/README.md.

    Tensors that the recipe skips are zeros of their shape.  Every filled tensor is compared with
    its hash in the table.
    """
    random = np.random.RandomState(seed)
    lines = (shared / "golden" / "state_dicts" / f"{model}.tsv").read_text().splitlines()
    state: dict[str, Tensor] = {}
    for line in lines[1:]:
        _, name, shape_text, dtype, _, filled, digest = line.split("\t")
        shape = () if shape_text == "scalar" else tuple(int(n) for n in shape_text.split("x"))
        if filled != "y":
            state[name] = torch.zeros(shape, dtype=getattr(torch, dtype))
            continue
        value = _fill(random, name, shape).astype(np.float32)
        found = hashlib.sha256(value.astype("<f4").tobytes()).hexdigest()[:16]
        assert found == digest, f"{name}: the fill recipe gives {found}, the table says {digest}"
        state[name] = torch.from_numpy(value)
    return state


def _fill(random: np.random.RandomState, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("running_mean"):
        return np.asarray(random.randn(*shape) * 0.1)
    if name.endswith("running_var"):
        return np.asarray(0.75 + 0.5 * random.rand(*shape))
    if len(shape) >= 2:
        return np.asarray(random.randn(*shape) * np.sqrt(1.0 / math.prod(shape[1:])))
    if name.endswith("weight"):
        return np.asarray(1.0 + 0.1 * random.randn(*shape))
    return np.asarray(0.1 * random.randn(*shape))


def without_dropout(model: nn.Module) -> nn.Module:
    """The model with every dropout rate at 0, as in the ``train.*`` vectors."""
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return model


def relative_error(value: Tensor, reference: Tensor) -> float:
    """Largest difference over the largest reference value."""
    difference = (value.detach().double() - reference.double()).abs().max()
    return float(difference / reference.double().abs().max())


def gradient_norms(network: nn.Module) -> dict[str, float]:
    """L2 norm of every gradient, under the original name of its parameter."""
    return {
        network.original_name(name): float(parameter.grad.norm())
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


def reference_norms(vectors: dict[str, Tensor], prefix: str) -> dict[str, float]:
    """The ``train.gradnorm.*`` of a golden file; NaN (no gradient in the original) is left out."""
    found = {
        name.removeprefix(prefix): float(value)
        for name, value in vectors.items()
        if name.startswith(prefix)
    }
    return {name: value for name, value in found.items() if not math.isnan(value)}


def assert_gradients_match(
    found: dict[str, float], reference: dict[str, float], noise: float = 1e-5
) -> None:
    """Same names, and norms within `GRADIENT` plus ``noise`` of the norm of the whole gradient.

    The second term is rounding in the reference itself: a ReLU or a maximum that falls on the other
    side in float32 moves a whole piece of gradient, and a bias in front of a batch norm has exactly
    zero gradient, of which float32 leaves some dust.
    """
    assert found.keys() == reference.keys()
    whole = math.sqrt(sum(value**2 for value in reference.values()))
    wrong = [
        f"{name}: {found[name]:.6g}, reference {value:.6g}"
        for name, value in reference.items()
        if abs(found[name] - value) > GRADIENT * value + noise * whole
    ]
    assert not wrong, "\n".join(wrong)


def swapped(state: dict[str, Tensor], first: str, second: str) -> dict[str, Tensor]:
    """The state dict with two tensors of one shape exchanged: a mutation that must be noticed."""
    assert state[first].shape == state[second].shape
    assert not torch.equal(state[first], state[second])
    return {**state, first: state[second], second: state[first]}


def save_state(state: dict[str, Tensor], path: Path) -> Path:
    """Write a state dict as .safetensors; returns the path."""
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, path)
    return path


def importer_error(model: nn.Module, shared: Path, name: str) -> float:
    """Largest relative error of the embeddings in ``golden/importers_io``: 200 and 57 frames.

    Features go straight into the network, as a batch and one by one.
    """
    vectors = read(shared, "importers_io")
    network = model.network.eval()
    errors = []
    with torch.inference_mode():
        for kind in ("", "_short"):
            features = vectors[f"input.feat{kind}"].transpose(1, 2)
            reference = vectors[f"{name}.eval.emb{kind}"]
            alone = torch.cat([network(item[None]) for item in features])
            errors += [relative_error(network(features), reference)]
            errors += [relative_error(alone, reference)]
    return max(errors)


def assert_importer_matches(model: nn.Module, shared: Path, name: str, count: int) -> None:
    """The model has ``count`` parameters and the embeddings of ``golden/importers_io``."""
    assert model.num_parameters == count
    assert importer_error(model, shared, name) < OUTPUT
