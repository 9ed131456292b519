"""Batches from worker processes, from any step on.

The stream never stops at an epoch's end: workers prefetch across it.  What arrives does not depend
on the number of workers, on the start method or on where the stream was started.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Sampler as TorchSampler

from glottis.data.batch import Batch
from glottis.data.dataset import CropDataset, Draw
from glottis.data.sampler import Sampler
from glottis.errors import DataError, TrainingStopped


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are made; nothing here changes what is in them."""

    workers: int = 2
    prefetch: int = 4
    pin_memory: bool = False
    persistent_workers: bool = True
    start_method: Literal["default", "fork", "spawn", "forkserver"] = "default"


class _Steps(TorchSampler[list[Draw]]):
    """The draws of steps ``start .. stop`` that belong to this process."""

    def __init__(self, sampler: Sampler, start: int, stop: int, rank: int, world: int) -> None:
        self.sampler, self.start, self.stop = sampler, start, stop
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.start, self.stop):
            rows = self.sampler.plan(step)
            # of a batch that does not divide (the end of an epoch) some ranks get one more
            first = len(rows) * self.rank // self.world
            last = len(rows) * (self.rank + 1) // self.world
            yield [Draw(step, item, int(rows[item])) for item in range(first, last)]


class Loader:
    """A stream of batches: ``for batch in loader.batches(start, stop)``.

    rank, world: this process and the number of processes; each gets its contiguous share of every
    batch, so that W processes see together what one process would see.
    """

    def __init__(
        self,
        dataset: CropDataset,
        sampler: Sampler,
        options: LoaderOptions,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if sampler.batch_size % (world * max(1, dataset.group)):
            raise DataError(
                f"a batch of {sampler.batch_size} does not divide over {world} processes",
                fix="make the batch size (or batch.speakers) a multiple of the process count",
            )
        smallest = len(sampler.plan(sampler.steps_per_epoch - 1))  # the last batch of an epoch
        if smallest < world:
            raise DataError(
                f"the last batch of an epoch has {smallest} clips for {world} processes",
                why="a process without a clip cannot take part in the step",
                fix="set data.drop_last=true",
            )
        self.dataset, self.sampler, self.options = dataset, sampler, options
        self.rank, self.world = rank, world

    @property
    def steps_per_epoch(self) -> int:
        return self.sampler.steps_per_epoch

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps ``start`` (included) to ``stop`` (excluded), on the CPU."""
        if self.options.persistent_workers or self.options.workers == 0:
            yield from self._stream(start, stop)
            return
        while start < stop:  # fresh workers for each epoch
            epoch_end = (start // self.steps_per_epoch + 1) * self.steps_per_epoch
            yield from self._stream(start, min(epoch_end, stop))
            start = epoch_end

    def one(self, step: int) -> Batch:
        """The batch of a step once more, made in this process."""
        (draws,) = _Steps(self.sampler, step, step + 1, self.rank, self.world)
        return self.dataset.__getitems__(draws)

    def _stream(self, start: int, stop: int) -> Iterator[Batch]:
        options = self.options
        parallel = options.workers > 0
        method = None if options.start_method == "default" else options.start_method
        yield from DataLoader(
            self.dataset,
            batch_sampler=_Steps(self.sampler, start, stop, self.rank, self.world),
            collate_fn=_as_it_is,
            num_workers=options.workers,
            prefetch_factor=options.prefetch if parallel else None,
            pin_memory=options.pin_memory and torch.cuda.is_available(),
            persistent_workers=options.persistent_workers and parallel,
            multiprocessing_context=method if parallel else None,
            worker_init_fn=_as_worker,
            # the loader draws a seed for its workers; ours come from (seed, step, item) alone
            generator=torch.Generator().manual_seed(0),
        )


def _as_it_is(batch: Any) -> Any:  # the dataset made the batch already
    return batch


@contextmanager
def workers_named() -> Iterator[None]:
    """A worker that dies stops what is inside and is named; torch raises it at any moment."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingStopped(
            f"a data worker died: {str(error).splitlines()[0]}",
            why="its batches are missing; it was killed from outside, often for want of memory",
            fix="lower data.workers, data.prefetch or data.cache_mb (or 0 workers to see the "
            "error itself), then continue with --resume",
        ) from error


def _as_worker(worker: int) -> None:
    """Workers leave the cores to the step, and signals to the process that they work for."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
