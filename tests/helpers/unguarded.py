"""Guards taken away, one each: called in the process of a run, before the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any


def no_signals() -> None:
    """SIGINT and SIGTERM do what Python and the system do with them."""
    from glottis.train.signals import Signals

    Signals.__enter__ = lambda self: self  # type: ignore[method-assign]
    Signals.__exit__ = lambda *_: None  # type: ignore[method-assign]


def one_signal_is_enough() -> None:
    """Every signal after the first is only noted."""
    from glottis.train.signals import Signals

    def note(self: Any, number: int, _: Any) -> None:
        import signal

        self.received = signal.Signals(number).name

    Signals._note = note  # type: ignore[method-assign]


def no_names_for_workers() -> None:
    """A dead worker is whatever torch makes of it."""
    from glottis.train import api

    api.workers_named = nullcontext  # type: ignore[assignment]


def no_names_for_peers() -> None:
    """A dead process is whatever torch makes of it."""
    from glottis.train import api

    api.peers_named = nullcontext  # type: ignore[assignment]


def no_retry() -> None:
    """A lack of memory is an error as any other."""
    from glottis.train import api, step

    for module in (step, api):  # in a step it is split, elsewhere it ends the run calmly
        module.out_of_memory = lambda error: False  # type: ignore[assignment]


def zeros_for_broken_clips() -> None:
    """What cannot be read is silence, and nobody is told: as in other trainers."""
    import numpy as np

    from glottis.data.dataset import CropDataset
    from glottis.errors import AudioError

    real = CropDataset._crop

    def crop(self: Any, row: int, count: int, place: float) -> Any:
        try:
            return real(self, row, count, place)
        except AudioError:
            return np.zeros(count, np.int16)

    CropDataset._crop = crop  # type: ignore[method-assign]


def no_stop_at_writes() -> None:
    """A write that fails is an error of the system as any other."""
    from glottis.train import api, checkpoint, run

    for module in (api, checkpoint, run):
        module.writing = lambda what: nullcontext()  # type: ignore[attr-defined]


def plain_writes() -> None:
    """One checkpoint, overwritten in place: as in most trainers."""
    import torch

    from glottis import files
    from glottis.models import save_model
    from glottis.train import checkpoint

    @contextmanager
    def in_place(path: Path) -> Iterator[Path]:
        yield path

    def save(self: Any, model: Any, state: Any, card: Any, **_: Any) -> Path:
        folder: Path = self.folder / "latest"
        with checkpoint.writing("the checkpoint"):
            save_model(model, folder, card)
            with (folder / "state.pt").open("wb") as file:
                torch.save({"format": checkpoint.STATE_FORMAT, **state}, file)
        return folder

    def latest(self: Any) -> Path | None:
        folder: Path = self.folder / "latest"
        return folder if (folder / "state.pt").exists() else None

    files.replacing = in_place  # type: ignore[assignment]
    checkpoint.CheckpointFolder.save = save  # type: ignore[method-assign]
    checkpoint.CheckpointFolder.latest = latest  # type: ignore[method-assign]


def lost_lines_are_no_matter() -> None:
    """A line that the log does not take is reported as the logging module does."""
    import logging

    from glottis.train import api

    api._LogFile.handleError = logging.Handler.handleError  # type: ignore[method-assign]


def no_words_for_system_errors() -> None:
    """An error of the system comes with its traceback."""
    from glottis.cli import main

    main.OSError = ZeroDivisionError  # type: ignore[attr-defined]


def every_step_counts_as_finite() -> None:
    """The masked update is a plain one: whatever the gradient is, it is applied and not counted."""
    import torch

    from glottis.train import distributed

    distributed.all_true = torch.ones_like  # type: ignore[assignment]


def nobody_looks_for_bad_numbers() -> None:
    """Steps, weights and buffers may be what they are: no guard counts or looks."""
    from glottis.train.guards import FiniteGuard

    FiniteGuard.after_step = lambda *_: None  # type: ignore[method-assign]
