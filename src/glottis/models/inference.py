"""How an utterance becomes input at test time, and how many of them are computed at once.

The result of an utterance never depends on what else is computed with it: lengths are cut to a
grid, only equal lengths share a batch, and nothing is padded with silence.

Shapes: B batch, S samples.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import nn

from glottis.config import Config
from glottis.errors import DataError, ModelError

_BATCHES_AHEAD = 2


class Hearing(Protocol):
    """What `Window` needs to know of a model."""

    sample_rate: int
    min_samples: int


class Window(Config):
    """Which part of an utterance the model hears."""

    seconds: float | None = Field(default=None, gt=0)
    """the first seconds of the utterance, a shorter one repeated; null: the whole utterance"""
    step_seconds: float = Field(default=0.1, gt=0)
    """a whole utterance is cut down to a multiple of this: only equal lengths share a batch"""
    max_seconds: float = Field(default=60.0, gt=0)
    """of a longer utterance only the first seconds are heard"""

    def text(self) -> str:
        """In words, for a log."""
        seconds, step, longest = self.seconds, self.step_seconds, self.max_seconds
        if seconds is not None:
            return f"the first {seconds:g} s of each clip, shorter ones repeated"
        return f"whole clips, cut to multiples of {step:g} s and to {longest:g} s at most"

    def samples(self, num_samples: int, model: Hearing) -> int:
        """Length of the input for an utterance of ``num_samples``, at the model's rate."""
        rate = model.sample_rate
        if self.seconds is not None:
            return max(round(self.seconds * rate), model.min_samples)
        step = max(1, round(self.step_seconds * rate))
        heard = min(num_samples, round(self.max_seconds * rate))
        return max(heard // step * step, model.min_samples)


def fit(samples: np.ndarray, size: int) -> np.ndarray:
    """The first ``size`` samples; a shorter clip is repeated from its start. (S,) -> (size,)"""
    return samples[:size] if len(samples) >= size else np.resize(samples, size)


def infer(
    model: Any,
    lengths: Sequence[int],
    read: Callable[[int], np.ndarray],
    *,
    window: Window,
    batch_seconds: float = 120.0,
    device: str | torch.device = "cpu",
    readers: int = 0,
) -> Iterator[tuple[list[int], Any]]:
    """Outputs of ``model`` for every item, each computed once: (items, output of the batch).

    lengths: samples per item.  read: item -> (S,) float32 at the model's rate, of that length.
    window: see `Window`.  batch_seconds: audio per batch.  readers: threads that read the next
    batches while this one is computed; 0 = none.  The batches are in order of length; the model is
    moved to ``device`` and computes in eval mode without gradients, and every module gets
    its own mode back.  Output tensors are inference tensors: they cannot enter autograd.
    """
    if not hasattr(model, "min_samples"):
        raise ModelError("infer needs a model from create_model, load_model or import_weights")
    model.to(device)
    buckets: dict[int, list[int]] = defaultdict(list)
    for item, length in enumerate(lengths):
        if length <= 0:
            raise DataError(f"item {item} has {length} samples", fix="leave empty clips out")
        buckets[window.samples(length, model)].append(item)
    batches = [
        (items[start : start + count], size)
        for size, items in sorted(buckets.items())
        for count in (max(1, int(batch_seconds * model.sample_rate / size)),)
        for start in range(0, len(items), count)
    ]

    def clip(item: int) -> np.ndarray:
        return _checked(read(item), item, lengths[item])

    for (some, size), clips in _read_ahead(batches, clip, readers):
        wave = np.stack([fit(samples, size) for samples in clips])
        with evaluating(model):
            output = model(torch.from_numpy(wave).to(device, non_blocking=True))
        yield some, output


def _read_ahead(
    batches: Sequence[tuple[list[int], int]], clip: Callable[[int], np.ndarray], readers: int
) -> Iterator[tuple[tuple[list[int], int], list[np.ndarray]]]:
    """Batches with their clips; threads (decoders release the interpreter) stay ahead."""
    if readers == 0:
        for batch in batches:
            yield batch, [clip(item) for item in batch[0]]
        return
    with ThreadPoolExecutor(readers) as pool:
        waiting: deque[tuple[tuple[list[int], int], list[Future[np.ndarray]]]] = deque()
        for batch in batches:
            waiting.append((batch, [pool.submit(clip, item) for item in batch[0]]))
            if len(waiting) > _BATCHES_AHEAD:
                first, futures = waiting.popleft()
                yield first, [future.result() for future in futures]
        for first, futures in waiting:
            yield first, [future.result() for future in futures]


def _checked(samples: np.ndarray, item: int, length: int) -> np.ndarray:
    if samples.shape != (length,) or samples.dtype != np.float32:
        raise DataError(
            f"item {item} was read as {samples.dtype} {samples.shape}, announced as ({length},)",
            fix="pass mono float32 samples at the model's rate, and their true number",
        )
    return samples


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards every module is in the mode it was in.

    cuDNN does not benchmark here: with many lengths it would tune for each of them again.
    """
    modes = [(module, module.training) for module in model.modules()]
    benchmark = torch.backends.cudnn.benchmark
    model.eval()
    torch.backends.cudnn.benchmark = False
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        for module, training in modes:
            module.training = training
