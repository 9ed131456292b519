"""What a person sees of the training: one live line, or plain lines when it is not a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import TextIO

log = logging.getLogger("glottis.progress")

PLAIN_SECONDS = 10.0  # at most one plain line in this time


class Progress:
    """Epoch, step, percentage, ETA, clips/s, loss, gradient norm, rate, share of data waiting.

    start, total: steps.  stream: where a terminal would be (stderr).
    """

    def __init__(
        self, start: int, total: int, steps_per_epoch: int, stream: TextIO | None = None
    ) -> None:
        self.start, self.total, self.epoch = start, total, steps_per_epoch
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.began = time.monotonic()
        self._last_plain = float("-inf")
        self._width = 0

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Show the state after ``step`` steps."""
        line = self.line(step, values)
        if self.live:
            padding = " " * max(0, self._width - len(line))
            self.stream.write(f"\r{line}{padding}")
            self.stream.flush()
            self._width = len(line)
        elif time.monotonic() - self._last_plain >= PLAIN_SECONDS or step >= self.total:
            self._last_plain = time.monotonic()
            log.info(line)

    def line(self, step: int, values: Mapping[str, float]) -> str:
        """The text of the line."""
        done = max(1, step - self.start)
        elapsed = time.monotonic() - self.began
        eta = elapsed / done * (self.total - step)
        percent = 100 * step / self.total
        epochs = -(-self.total // self.epoch)
        return (
            f"epoch {min(epochs, (step - 1) // self.epoch + 1)}/{epochs}  "
            f"step {step}/{self.total} {percent:3.0f} %  eta {clock(eta)}  "
            f"{values.get('clips_per_s', 0):.0f} clips/s  loss {values.get('loss', 0):.4f}  "
            f"grad {values.get('grad_norm', 0):.2f}  rate {values.get('rate', 0):.2e}  "
            f"data {100 * values.get('data_wait', 0):.0f} %"
        )

    def message(self, text: str) -> None:
        """A line of its own, above the live line."""
        if self.live:
            self.stream.write("\r" + " " * self._width + "\r")
            self._width = 0
        log.info(text)

    def close(self) -> None:
        """End the live line."""
        if self.live and self._width:
            self.stream.write("\n")
            self.stream.flush()


def clock(seconds: float) -> str:
    """``1:02:03`` or ``02:03``."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes:02d}:{whole % 60:02d}"
