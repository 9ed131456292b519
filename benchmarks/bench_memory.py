"""An effective batch of 64 clips of AASIST within 4 GB, and what it costs.

    python benchmarks/bench_memory.py [--budget-gb 4] [--steps 3]

Prints JSON.  A step is forward, loss, backward, Adam, in fp32; the batch is computed as a whole, in
pieces, or in pieces with activation checkpointing.  ``counted`` is the peak of all tensors that are
alive in a step, counted without computing anything (meta device).  With a GPU every case also runs
under a hard limit (torch.cuda.set_per_process_memory_fraction), with its peak, the median time of a
step, and the relative distance of the gradient from that of the whole batch (computed without the
limit; batch norms and dropout in eval mode: in train mode each piece has its own).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.models import create_model
from glottis.train.recipe import RuntimeConfig
from glottis.train.runtime import prepare_network

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from helpers.memory import LivePeak

BATCH, SAMPLES, GIB = 64, 64_600, 2**30
CASES = {  # pieces, activation checkpointing
    "whole": (1, False),
    "16 pieces": (16, False),
    "16 pieces, checkpointing": (16, True),
    "64 pieces, checkpointing": (64, True),
}


def network(device: torch.device, *, recompute: bool) -> Any:
    model: Any = create_model("aasist", seed=1).train()
    prepare_network(model, RuntimeConfig(activation_checkpointing=recompute), device)
    return model


def accumulate(model: Any, wave: Tensor, labels: Tensor, pieces: int) -> None:
    """The gradient of the whole batch, piece by piece."""
    for x, y in zip(wave.chunk(pieces), labels.chunk(pieces), strict=True):
        loss = functional.cross_entropy(model(x).logits, y, reduction="sum") / len(labels)
        loss.backward()


def counted(pieces: int, *, recompute: bool) -> float:
    """GiB at the peak; two pieces show what all of them take."""
    device, some = torch.device("meta"), min(pieces, 2)
    model, clips = network(device, recompute=recompute), BATCH // pieces * some
    with LivePeak() as memory:
        wave = torch.empty(clips, SAMPLES, device=device)
        accumulate(model, wave, torch.zeros(clips, dtype=torch.long, device=device), some)
    return memory.peak / GIB


def batch(device: torch.device) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(3)
    wave = 0.1 * torch.randn(BATCH, SAMPLES, generator=drawn)
    return wave.to(device), (torch.arange(BATCH) % 2).to(device)


def limited(budget: float, pieces: int, steps: int, *, recompute: bool) -> dict[str, Any]:
    """Some steps on a GPU that gives no more than the budget."""
    device = torch.device("cuda")
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    torch.cuda.set_per_process_memory_fraction(min(1.0, budget * GIB / total), device)
    seconds = []
    try:
        model = network(device, recompute=recompute)
        adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
        wave, labels = batch(device)
        for _ in range(steps + 1):
            began = time.perf_counter()
            adam.zero_grad(set_to_none=True)
            accumulate(model, wave, labels, pieces)
            adam.step()
            torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - began)
    except torch.OutOfMemoryError as error:
        return {"fits": False, "said": str(error).splitlines()[0][:120]}
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    peak = torch.cuda.max_memory_allocated(device) / GIB
    median = statistics.median(seconds[1:])
    return {"fits": True, "peak_gb": round(peak, 3), "seconds_per_step": round(median, 3)}


def gradient(pieces: int, device: torch.device, *, recompute: bool) -> Tensor:
    model = network(device, recompute=recompute)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd):
            module.eval()
    accumulate(model, *batch(device), pieces)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget-gb", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    result: dict[str, Any] = {"torch": torch.__version__, "budget_gb": arguments.budget_gb}
    result["gpu"] = torch.cuda.get_device_name() if gpu else None
    for name, (pieces, recompute) in CASES.items():
        row: dict[str, Any] = {"counted_gb": round(counted(pieces, recompute=recompute), 3)}
        row["counted_fits"] = row["counted_gb"] < arguments.budget_gb
        if gpu:
            row |= limited(arguments.budget_gb, pieces, arguments.steps, recompute=recompute)
        result[name] = row
    if gpu:
        device = torch.device("cuda")
        whole = gradient(1, device, recompute=False)
        for name, (pieces, recompute) in CASES.items():
            other = gradient(pieces, device, recompute=recompute)
            distance = ((other - whole).norm() / whole.norm()).item()
            result[name]["gradient_distance"] = float(f"{distance:.2g}")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
