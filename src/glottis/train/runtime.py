"""The switches of the machine: device, determinism, layout, compilation, recomputation."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from glottis.errors import ConfigError
from glottis.models import SpeakerModel, SpoofModel
from glottis.train.recipe import RuntimeConfig

log = logging.getLogger(__name__)

MOST_WORKERS = 4


def pick_device(name: str) -> torch.device:
    """``auto`` = cuda, else mps, else cpu; an unavailable device is an error, not a fallback."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"'{name}' is not a device", fix="give auto, cpu, cuda, cuda:1 or mps"
        ) from None
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ConfigError(
            f"the device is '{name}', and this machine has none", fix="use auto or cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"there are {torch.cuda.device_count()} GPUs, no '{name}'")
    return device


def usable_cores() -> int:
    """Cores that this process may run on: a container or ``taskset`` may leave it only some."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def automatic_workers() -> int:
    """Data workers when the recipe names no number: one per core, MOST_WORKERS at most.

    The processes that ``torchrun`` starts on one machine share its cores.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(MOST_WORKERS, usable_cores() // processes))


def set_switches(config: RuntimeConfig, device: torch.device) -> None:
    """Process-wide settings of torch; every field acts (a test reads them back)."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    benchmark, deterministic = config.cudnn_benchmark, config.deterministic
    torch.backends.cudnn.benchmark = benchmark and not deterministic
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        # cuBLAS reads this when CUDA starts; set it even if a GPU appears only later
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)


def prepare_network(
    model: SpeakerModel | SpoofModel, config: RuntimeConfig, device: torch.device
) -> None:
    """Move the model to its device and apply layout, recomputation and compilation, in place.

    State-dict keys stay as they are: nothing is wrapped.
    """
    model.to(device)
    if config.channels_last:
        model.network.to(memory_format=torch.channels_last)
    if config.activation_checkpointing:
        _recompute(model.network)
    if config.compile:
        model.network.compile(dynamic=False)


def in_fp32(module: nn.Module) -> None:
    """Compute a module in float32 from now on, whatever the precision around it, in place."""
    inner = module.forward

    def forward(*inputs: Any, **options: Any) -> Any:
        given = [x.float() if _is_half(x) else x for x in inputs]
        with torch.autocast(_device_of(module, given).type, enabled=False):
            return inner(*given, **options)

    module.forward = forward


def _is_half(value: Any) -> bool:
    return torch.is_tensor(value) and value.dtype in (torch.float16, torch.bfloat16)


def _device_of(module: nn.Module, inputs: list[Any]) -> torch.device:
    tensors = [*module.parameters(), *(x for x in inputs if torch.is_tensor(x))]
    return tensors[0].device if tensors else torch.device("cpu")


def _recompute(network: nn.Module) -> None:
    """Recompute each heavy block in the backward pass instead of keeping its activations."""
    blocks = [module for name, module in network.named_modules() if _is_heavy(network, name)]
    if not blocks:
        raise ConfigError(
            f"{type(network).__name__} names no heavy blocks to recompute",
            fix="set runtime.activation_checkpointing=false",
        )
    for block in blocks:
        block.forward = partial(_checkpointed, block, block.forward)  # type: ignore[method-assign]


def _is_heavy(network: nn.Module, name: str) -> bool:
    """Direct children of the lists that the network declares as ``heavy_blocks``."""
    parents: tuple[str, ...] = getattr(network, "heavy_blocks", ())
    return name.rpartition(".")[0] in parents and bool(name)


def _checkpointed(block: nn.Module, forward: Any, *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    return checkpoint(
        forward,
        *inputs,
        **options,
        use_reentrant=False,
        context_fn=lambda: (_nothing(), _statistics_kept(block)),
    )


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms see the second forward pass too; their running statistics must not."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
