"""One step: forward, backward, check, clip, update.  Nothing in it waits for the device."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glottis.data.batch import Batch
from glottis.errors import TrainingStopped
from glottis.rng import stream_key
from glottis.train import distributed
from glottis.train.optim import Optimiser
from glottis.train.precision import Precision
from glottis.train.shares import shares
from glottis.train.task import Task

log = logging.getLogger(__name__)

Stats = dict[str, Tensor]


@dataclass
class Pieces:
    """In how many pieces a batch is computed.  It grows when memory does not suffice, and stays."""

    count: int = 1


def step_seed(seed: int, step: int, rank: int) -> int:
    """What torch's generator is set to before a step: dropout is a function of (seed, step)."""
    return stream_key(seed, "step", step, rank)[0]


def step(
    task: Task,
    batch: Batch,
    optim: Optimiser,
    precision: Precision,
    *,
    pieces: Pieces,
    clip_norm: float,
    measure: bool = False,
) -> Stats:
    """Make one optimiser step and return detached statistics (device tensors).

    measure: how much of the gradient each term of the loss makes up, too (``share_...``).

    A step whose loss, gradient or batch-norm statistics are not finite changes nothing: not the
    weights, not the moments, not the buffers, not the schedule.  A batch for which memory does not
    suffice is computed again in twice as many pieces; the gradient is that of the whole batch.
    """
    buffers = [b for b in task.buffers() if b.numel()]
    before = [b.clone() for b in buffers]
    while True:
        try:
            sums = _gradients(task, batch, optim, precision, pieces, measure)
            break
        except Exception as error:
            if not out_of_memory(error):
                raise
            reason = first_line(error)
        # outside the handler: the traceback held the activations
        optim.zero_grad()
        for buffer, old in zip(buffers, before, strict=True):
            buffer.copy_(old)
        torch.manual_seed(torch.initial_seed())  # the failed attempt has drawn from it
        if precision.device.type == "cuda":
            torch.cuda.empty_cache()
        _split_more(pieces, batch, task, reason)
    return _update(*sums, task, optim, precision, buffers, before, clip_norm)


def out_of_memory(error: BaseException) -> bool:
    """Whether the device or the host had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def first_line(error: BaseException) -> str:
    """Of its message, or what kind of error it is."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _split_more(pieces: Pieces, batch: Batch, task: Task, reason: str) -> None:
    used = min(pieces.count, len(batch))
    smaller = "shorten data.crop_seconds, set runtime.activation_checkpointing=true"
    why, fix = "", ""
    if distributed.world() > 1:
        why = "the other processes wait for this one in the middle of a step"
        fix = "raise train.accumulation, or lower batch.size"
    elif batch.group:
        why = "this loss compares the speakers of a batch: in pieces it would be another loss"
        fix = f"lower batch.speakers, {smaller}"
    elif any(term.compares for term in task.terms):
        why = "distillation.kind=relational compares the clips of a batch: in pieces it would be "
        why += "another loss"
        fix = f"lower batch.size, {smaller}"
    elif used == len(batch):
        why = "a smaller piece of a batch does not exist"
        fix = f"{smaller} or train.precision=bf16, or take a smaller model"
    if why:
        raise TrainingStopped(
            f"there is not enough memory for {len(batch) // used} clips at once ({reason})",
            why=why,
            fix=fix,
        )
    pieces.count = min(2 * used, len(batch))
    log.warning(
        "not enough memory for a batch of %d in %d piece(s): from now on in %d; the gradient is "
        "that of the whole batch; batch norm and mixup see a piece (%s)",
        *(len(batch), used, pieces.count, reason),
    )


def _gradients(
    task: Task,
    batch: Batch,
    optim: Optimiser,
    precision: Precision,
    pieces: Pieces,
    measure: bool,
) -> tuple[Tensor, Stats, Stats]:
    """Forward and backward: the loss of the whole batch, statistics, and shares of the gradient.

    It may be made again: nothing but gradients and buffers is written.
    """
    optim.zero_grad()
    total, stats, squares = torch.zeros((), device=precision.device), Stats(), Stats()
    whole = distributed.mean(task.mass(batch.labels))
    items = distributed.mean(torch.full_like(whole, len(batch))) if task.terms else len(batch)
    for part in batch.split(pieces.count):
        share = task.mass(part.labels) / whole  # of the mean over the batch, in all processes
        with task.synchronised(last=part.is_last):
            # margin heads run in fp32 inside
            counts = (share, len(part.labels) / items)
            result = task.run(part, precision, measure=counts if measure else None)
            objective = result.loss * share
            if result.extra is not None:
                objective = objective + result.extra * counts[1]
            (objective * precision.scale).backward()  # type: ignore[no-untyped-call]
        total += objective.detach()
        add(stats, {"loss": result.loss.detach(), **result.stats}, share)
        add(stats, result.extra_stats, counts[1])
        add(squares, result.squares, 1.0)  # of the rows of the batch, piece by piece
    return total, stats, squares


def _update(
    total: Tensor,
    stats: Stats,
    squares: Stats,
    task: Task,
    optim: Optimiser,
    precision: Precision,
    buffers: list[Tensor],
    before: list[Tensor],
    clip_norm: float,
) -> Stats:
    """Check, clip, update.  It is made once: a part of the weights may have moved already."""
    norm = gradient_norm(optim.parameters) / precision.scale  # before clipping
    if task.terms:
        stats |= {"loss_total": total, **shares(squares)}
    own = torch.isfinite(norm) & torch.isfinite(total) & all_finite(buffers, norm)
    finite, sane = distributed.all_true(torch.stack([own, torch.isfinite(total)])).unbind()
    scale_gradients(optim.parameters, clip_factor(norm, clip_norm) / precision.scale)
    optim.step(finite)  # masked: a bad step changes nothing
    for buffer, old in zip(buffers, before, strict=True):
        buffer.copy_(torch.where(finite, buffer, old))
    precision.update(finite)
    clipped = norm > clip_norm if clip_norm > 0 else torch.zeros_like(finite)
    stats |= {"grad_norm": norm, "clipped": clipped.float(), "skipped": (~finite).float()}
    if precision.scaled:  # too large a scale, and nothing else: it halves
        stats["overflow"] = (~finite & sane & (precision.scale > 1)).float()
    return stats


def add(sums: Stats, values: Mapping[str, Tensor], share: Tensor | float) -> None:
    """Add each value, times the share of its part."""
    for name, value in values.items():
        sums[name] = sums.get(name, 0) + value * share


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm over all gradients, a device scalar (fp32)."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    norm: Tensor = torch.linalg.vector_norm(torch.stack([n.float() for n in norms]))
    return norm


def all_finite(tensors: Iterable[Tensor], like: Tensor) -> Tensor:
    """Whether every value of the floating-point tensors is finite, a device scalar."""
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    if not floats:
        return torch.ones((), dtype=torch.bool, device=like.device)
    norms = torch._foreach_norm(floats, float("inf"))
    return torch.isfinite(torch.stack([norm.float() for norm in norms])).all()


def clip_factor(norm: Tensor, max_norm: float) -> Tensor:
    """min(1, max_norm / norm); 0 turns clipping off."""
    if max_norm <= 0:
        return torch.ones_like(norm)
    return (max_norm / (norm + 1e-6)).clamp(max=1.0)


def scale_gradients(parameters: Iterable[nn.Parameter], factor: Tensor) -> None:
    """Multiply every gradient by a device scalar."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    torch._foreach_mul_(gradients, factor)
