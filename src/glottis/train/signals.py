"""SIGINT and SIGTERM: finish the step, save, stop.  The second one ends the process at once."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType
from typing import Any, Self

from glottis.errors import TrainingStopped
from glottis.train import distributed

log = logging.getLogger(__name__)

ASKED = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """While it is entered, the first signal is a request.  received: its name, or empty."""

    def __init__(self) -> None:
        self.received = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            self._before = {number: signal.signal(number, self._note) for number in ASKED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = signal.Signals(number).name
        log.warning("%s: finishing the step, then saving (once more: at once)", self.received)

    def asked(self, *, agreed: bool) -> str:
        """The signal that this or, where they have ``agreed`` to look, another process received."""
        if distributed.world() == 1:
            return self.received
        return max(distributed.gather_lists([self.received])) if agreed else ""


def stopped_by(name: str, step: int, folder: object) -> TrainingStopped:
    """The end of a run that was asked to stop, after its state was saved."""
    return TrainingStopped(
        f"stopped by {name} after step {step}, which is saved",
        fix=f"continue with --out {folder} --resume",
    )
