"""How much faster a training step is than a plain formulation of the same mathematics.

    python benchmarks/bench_step.py [--models aasist,aasist_l] [--batch 4] [--seconds 2]

Prints JSON.  Every ratio is (time of the plain step) / (time of ours), from rounds in which all
variants take their turn: median, least and greatest over the rounds.  A step is forward, loss,
backward, Adam.  Before anything is timed, outputs and gradients of both are compared in float64.
``saved_mb`` is what autograd keeps for the backward pass, per clip.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from _plain_networks import (
    aasist_filters,
    mel_filters,
    plain_aasist,
    plain_features,
    plain_resnetse34l,
)
from glottis.losses import LOSSES, build_loss
from glottis.models import create_model

Forward = Callable[[Tensor], Tensor]
VARIANTS = {
    "fp32": (False, torch.float32),
    "fp32 channels-last": (True, torch.float32),
    "bf16": (False, torch.bfloat16),
    "bf16 channels-last": (True, torch.bfloat16),
}


class Step:
    """One variant: a model, its loss head, its optimiser."""

    def __init__(self, model: nn.Module, forward: Forward, head: nn.Module, dtype: torch.dtype):
        self.model, self.forward, self.head, self.dtype = model, forward, head, dtype
        learned = [p for p in (*model.parameters(), *head.parameters()) if p.requires_grad]
        self.adam = torch.optim.Adam(learned, lr=1e-4, weight_decay=1e-4)

    def train(self, wave: Tensor, labels: Tensor) -> None:
        self.adam.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self.head(self.forward(wave), labels).loss
        loss.backward()
        self.adam.step()

    def evaluate(self, wave: Tensor) -> None:
        with self._autocast(), torch.inference_mode():
            self.forward(wave)

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=self.dtype, enabled=self.dtype != torch.float32)


def logits(model: nn.Module, wave: Tensor) -> Tensor:
    output = model(wave)
    return output.logits if isinstance(output, tuple) else output


def plain_forward(model: Any) -> Forward:
    """The plain formulation on the weights of ``model``, from the waveform."""
    if model.task == "spoof":
        return partial(plain_aasist, model.network, filters=aasist_filters(model.network))
    mel, window = mel_filters(model.frontend.num_features), torch.hamming_window(400)
    return lambda wave: plain_resnetse34l(model.network, plain_features(wave, mel, window))


def head_for(model: Any) -> nn.Module:
    if model.task == "spoof":
        return build_loss(LOSSES.config("weighted_cross_entropy"), model.embedding_size, 2)
    return build_loss(LOSSES.config("aam_softmax"), model.embedding_size, 1211)


def fresh(name: str) -> Any:
    """The model without dropout, so that both formulations compute the same."""
    model = create_model(name, seed=0)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.train()


def assert_equal(name: str) -> dict[str, float]:
    """Relative differences of outputs and gradients in float64; raises if one is not rounding."""
    model = fresh(name)
    wave = torch.randn(3, 9000) * 0.1
    if model.task == "spoof":
        x, network = wave.double(), model.network.double()
        plain: Forward = partial(plain_aasist, network, filters=aasist_filters(network).double())
    else:
        x, network = model.frontend(wave).double(), model.network.double()
        plain = partial(plain_resnetse34l, network)
        mel, window = mel_filters(model.frontend.num_features), torch.hamming_window(400)
        features = plain_features(wave, mel, window)
        if not relative(x.float(), features) < 1e-4:
            raise AssertionError(f"{name}: the features differ: {relative(x.float(), features)}")
    state = copy.deepcopy(network.state_dict())
    found = {}
    for mode in ("train", "eval"):
        outputs, gradients = [], []
        for forward in (partial(logits, network), plain):
            network.load_state_dict(state)
            network.train(mode == "train").zero_grad(set_to_none=True)
            output = forward(x)
            output.square().sum().backward()
            outputs.append(output.detach())
            learned = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
            gradients.append(torch.cat(learned))
        found[f"{mode} output"] = relative(*outputs)
        found[f"{mode} gradient"] = relative(*gradients)
    bad = {key: value for key, value in found.items() if not value < 1e-9}
    if bad:
        raise AssertionError(f"{name}: the formulations differ: {bad}")
    return found


def relative(ours: Tensor, plain: Tensor) -> float:
    return float((ours - plain).norm() / plain.norm())


def saved_megabytes(step: Step, wave: Tensor, labels: Tensor) -> float:
    """Distinct memory that autograd keeps between forward and backward, per clip."""
    storages: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in step.model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), step._autocast():
        step.head(step.forward(wave), labels)
    return sum(storages.values()) / len(wave) / 2**20


def timed(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(name: str, batch: int, seconds: float, rounds: int) -> dict[str, Any]:
    """All variants of one model against its plain formulation."""
    wave = torch.randn(batch, int(seconds * 16000)) * 0.1
    labels = torch.arange(batch) % 2
    plain_model = fresh(name)
    steps = {
        "plain": Step(plain_model, plain_forward(plain_model), head_for(plain_model), torch.float32)
    }
    for variant, (channels_last, dtype) in VARIANTS.items():
        model = fresh(name)
        if channels_last:
            model = model.to(memory_format=torch.channels_last)
        steps[variant] = Step(model, partial(logits, model), head_for(model), dtype)
    result: dict[str, Any] = {
        "differences": assert_equal(name),
        "saved_mb": {key: round(saved_megabytes(s, wave, labels), 1) for key, s in steps.items()},
    }
    for mode in ("train", "eval"):
        times: dict[str, list[float]] = {key: [] for key in steps}
        for index in range(rounds + 1):
            for key, step in steps.items():
                step.model.train(mode == "train")
                action = (
                    partial(step.train, wave, labels)
                    if mode == "train"
                    else partial(step.evaluate, wave)
                )
                spent = timed(action)
                if index:  # the first round warms up
                    times[key].append(spent)
        result[mode] = {key: ratios(times["plain"], times[key]) for key in steps if key != "plain"}
        result[mode]["plain_seconds"] = round(statistics.median(times["plain"]), 4)
    return result


def ratios(plain: list[float], ours: list[float]) -> dict[str, float]:
    values = [a / b for a, b in zip(plain, ours, strict=True)]
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="aasist,aasist_l,resnetse34l")
    parser.add_argument("--batch", type=int, default=4, help="clips per step")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = {
        "benchmark": "step",
        "ratio": "time of the plain formulation / time of ours, paired rounds",
        "torch": torch.__version__,
        "threads": arguments.threads,
        "batch": arguments.batch,
        "seconds": arguments.seconds,
        "rounds": arguments.rounds,
        "models": {
            name: compare(name, arguments.batch, arguments.seconds, arguments.rounds)
            for name in arguments.models.split(",")
        },
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
