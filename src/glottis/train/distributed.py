"""Several processes as one: ``torchrun --nproc-per-node 2 -m glottis train RECIPE``.

Each process holds a contiguous share of every batch, batch-norm statistics and grouped losses see
the whole batch, gradients are averaged by DDP.  W processes with b items each do what one process
with W b items does, up to fp32 rounding.  gloo on CPUs, nccl on GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glottis.errors import TrainingStopped


def start(device: torch.device) -> None:
    """Join the group that ``torchrun`` describes in the environment; nothing if it does not."""
    if "RANK" in os.environ and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)  # nccl moves objects through the current device
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def stop() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def peers_named() -> Iterator[None]:
    """Another process that dies stops this one, with words for it: no step is made without it."""
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not any(sign in str(error) for sign in ("gloo", "NCCL", "by peer")):
            raise
        raise TrainingStopped(
            f"the connection to another process of the run is lost (this is rank {rank()})",
            why="a step needs all of them; the other one has ended or was killed",
            fix="look for what it said (or who killed it, often for want of memory), then "
            "continue with --resume",
        ) from error


def rank() -> int:
    """This process, 0 to world() - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_device(device: torch.device) -> torch.device:
    """``cuda`` with the index of this process on its machine."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device


def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        dist.barrier()


def all_true(flag: Tensor) -> Tensor:
    """Whether each boolean of a device tensor is true in every process (no wait on one process)."""
    return flag if world() == 1 else least(flag.to(torch.int32)).bool()


def least(value: Tensor) -> Tensor:
    """Smallest value over the processes."""
    if world() > 1:
        value = value.clone()
        dist.all_reduce(value, op=dist.ReduceOp.MIN)
    return value


def any_true(flag: bool) -> bool:
    """Whether it is so in one of the processes (all of them wait)."""
    return any(gather_lists([flag]))


def mean(value: Tensor) -> Tensor:
    """Mean of a tensor over the processes."""
    if world() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    mean: Tensor = value / world()
    return mean


def gather_lists(items: list[Any]) -> list[Any]:
    """The lists of all processes, joined in the order of their ranks (picklable items)."""
    if world() == 1:
        return items
    parts: list[Any] = [None] * world()
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


class _Sum(torch.autograd.Function):
    """Sum over processes; the gradient is summed too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def gather_rows(rows: Tensor) -> Tensor:
    """(B, ...) of each process to (W B, ...) in all of them, with gradient."""
    if world() == 1:
        return rows
    whole = rows.new_zeros((world(), *rows.shape))
    whole[rank()] = rows
    summed: Tensor = _Sum.apply(whole)  # type: ignore[no-untyped-call]
    return summed.flatten(0, 1)


def gather_shares(*tensors: Tensor) -> tuple[list[Tensor], slice]:
    """`gather_rows` where the shares may differ in size, and which rows are this process's own.

    tensors: with one row per item, all of one length.
    """
    mine = len(tensors[0])
    if world() == 1:
        return list(tensors), slice(0, mine)
    counts = gather_lists([mine])
    most = max(counts)
    whole = []
    for rows in tensors:
        padded = torch.cat([rows, rows.new_zeros((most - mine, *rows.shape[1:]))])
        shares = gather_rows(padded).view(world(), *padded.shape)
        whole.append(torch.cat([share[:n] for share, n in zip(shares, counts, strict=True)]))
    first = sum(counts[: rank()])
    return whole, slice(first, first + mine)


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the items of all processes, on any backend.

    (B, C, ...) -> the same shape; statistics in fp32.  `torch.nn.SyncBatchNorm` is for GPUs only.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.dim() >= 2

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world() == 1 or not self.track_running_stats:
            return super().forward(input)
        x = input.float()
        axes = [axis for axis in range(x.dim()) if axis != 1]
        count = _Sum.apply(torch.tensor(float(x.numel() // x.shape[1]), device=x.device))  # type: ignore[no-untyped-call]
        mean = _Sum.apply(x.sum(axes)) / count  # type: ignore[no-untyped-call]
        shape = (1, -1, *([1] * (x.dim() - 2)))
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self._update(mean.detach(), variance.detach() * count / (count - 1))
        y = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        result: Tensor = y.to(input.dtype)
        return result

    def _update(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def share_batch_norms(module: nn.Module) -> None:
    """Replace every batch norm below ``module`` by one over all processes, in place."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            shared = SharedBatchNorm(child.num_features, child.eps, child.momentum, child.affine)
            shared.load_state_dict(child.state_dict())
            for key, parameter in child.named_parameters(recurse=False):
                getattr(shared, key).requires_grad_(parameter.requires_grad)
            setattr(module, name, shared.to(next(child.buffers()).device))
        else:
            share_batch_norms(child)
