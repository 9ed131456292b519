"""Small watchers of a run, three hooks each: before_run, after_step, after_eval.

A guard may warn in the log or raise `TrainingStopped`.  It sees numbers only at the log interval
(``values``); at other steps it gets nothing that would have to be read from the device.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from glottis.config import Config
from glottis.errors import TrainingStopped
from glottis.train.task import Task

log = logging.getLogger(__name__)


@dataclass
class Watch:
    """What guards may look at.

    folder: run folder.  num_classes: K, or the speakers of a grouped batch.
    checkpoint_bytes: size of one, about.
    """

    folder: Path
    task: Task
    num_classes: int
    checkpoint_bytes: int


@dataclass(frozen=True)
class Verdict:
    """What a guard asks for; None is to go on.

    action: "roll back" to the best weights, or "stop" after doing so.  lower: factor on the rate of
    the network from then on.  freeze: train only what the phase before trained.  why: for the log.
    """

    action: Literal["roll back", "stop"]
    why: str
    lower: float = 1.0
    freeze: bool = False


class Guard:
    """Base: does nothing."""

    def before_run(self, watch: Watch) -> None:
        """Once, before the first step."""

    def after_step(self, step: int, values: Mapping[str, float]) -> None:
        """At each log interval, with the means since the last one."""

    def after_eval(self, step: int, values: Mapping[str, float]) -> Verdict | None:
        """After each evaluation."""
        return None


class FiniteGuard(Guard):
    """Stops when more than ``budget`` of the last 1,000 steps were not finite (rule H1)."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._windows: deque[tuple[int, float]] = deque()

    def after_step(self, step: int, values: Mapping[str, float]) -> None:
        skipped = values.get("skipped_steps", 0)
        if not skipped:
            return
        self._windows.append((step, skipped))
        while self._windows[0][0] <= step - 1000:
            self._windows.popleft()
        total = sum(count for _, count in self._windows)
        log.warning("%d step(s) were not finite and changed nothing (step %d)", skipped, step)
        if total > self.budget:
            raise TrainingStopped(
                f"{total:.0f} of the last 1,000 steps had a non-finite loss or gradient "
                f"(allowed: train.skipped_budget={self.budget})",
                why="skipping more would train on a biased part of the data",
                fix="look for the first bad value: train.precision=fp32, a lower optim.rate, or "
                "the clips of the step named in train.log; the last checkpoint is intact",
                rule="H1",
            )


class ChanceGuard(Guard):
    """Warns once if the loss is still at its chance value after three epochs (rule O7)."""

    def __init__(self, steps_per_epoch: int) -> None:
        self.after = max(50, 3 * steps_per_epoch)
        self._chance = math.nan
        self._collapse: float | None = None
        self._told = False

    def before_run(self, watch: Watch) -> None:
        self._chance = watch.task.head.chance_loss(watch.num_classes)
        self._collapse = watch.task.head.collapse_loss(watch.num_classes)
        log.info("a loss of %.3f is chance for %d classes", self._chance, watch.num_classes)

    def after_step(self, step: int, values: Mapping[str, float]) -> None:
        if self._told or step < self.after or "loss" not in values:
            return
        if abs(values["loss"] - self._chance) < 0.03 * self._chance:
            self._told = True
            log.warning(
                "[O7] after %d steps the loss is %.3f; chance is %.3f: the classifier learns "
                "nothing. Check the labels and the learning rate",
                step,
                values["loss"],
                self._chance,
            )
        elif (
            self._collapse is not None
            and abs(values["loss"] - self._collapse) < 0.08 * self._collapse
            and values.get("accuracy", 1.0) < 1.5 / 100
        ):
            self._told = True
            log.warning(
                "[O8] after %d steps the loss is %.3f with accuracy near 0; %.3f is the value of "
                "collapsed embeddings (all alike). Lower the margin or the learning rate",
                step,
                values["loss"],
                self._collapse,
            )


class FrozenGuard(Guard):
    """Stops if something that is frozen has changed, buffers included (rule O2)."""

    def before_run(self, watch: Watch) -> None:
        self._task = watch.task
        self._before = self._sums()

    def after_eval(self, step: int, values: Mapping[str, float]) -> None:
        now = self._sums()
        moved = [name for name, found in self._before.items() if now.get(name) != found]
        if moved:
            raise TrainingStopped(
                f"{len(moved)} frozen tensors have changed by step {step}: {', '.join(moved[:5])}",
                why="what counts as the untouched network is another one by now",
                fix="this is a bug of the model or of Glottis; report it with the model's name",
                rule="O2",
            )

    def _sums(self) -> dict[str, str]:
        return {name: content_hash(tensor) for name, tensor in self._task.frozen().items()}


def content_hash(tensor: Tensor) -> str:
    """16 hex digits over the bits of a tensor."""
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.blake2b(data.tobytes(), digest_size=8).hexdigest()


class StageGuardConfig(Config):
    """What to do when a phase makes the model worse."""

    evaluations: int = Field(2, ge=1)
    """Evaluations in a row whose EER is above the best by more than its uncertainty: the 95 %
    interval of the paired difference over speakers excludes 0."""
    action: Literal["lower", "freeze", "stop"] = "lower"
    """Back to the best weights, and then: lower the rate of the network, train only what the phase
    before trained, or stop."""
    factor: float = Field(0.1, gt=0, lt=1)
    """What `lower` multiplies the rate of the network by."""


class StageGuard(Guard):
    """Takes the best weights back when evaluations are worse than theirs beyond doubt (rule H8)."""

    def __init__(self, config: StageGuardConfig) -> None:
        self.evaluations, self.action = config.evaluations, config.action
        self.factor = config.factor

    def after_eval(self, step: int, values: Mapping[str, float]) -> Verdict | None:
        count = self.evaluations
        if values.get("dev/worse_in_a_row", 0) < count:
            return None
        low, high = values["dev/minus_best_low"], values["dev/minus_best_high"]
        why = (
            f"[H8] {count} evaluations in a row were worse than the best; now by "
            f"{100 * values['dev/minus_best']:.2f} points of EER, 95 % interval "
            f"[{100 * low:.2f}, {100 * high:.2f}]"
        )
        if self.action == "stop":
            return Verdict("stop", why)
        if self.action == "freeze":
            return Verdict("roll back", why, freeze=True)
        return Verdict("roll back", why, lower=self.factor)


class DiskGuard(Guard):
    """Stops before the disk is full: three checkpoints must fit (rule F9)."""

    def before_run(self, watch: Watch) -> None:
        self._watch = watch
        self._check()

    def after_eval(self, step: int, values: Mapping[str, float]) -> None:
        self._check()

    def _check(self) -> None:
        needed = 3 * self._watch.checkpoint_bytes
        free = shutil.disk_usage(self._watch.folder).free
        if free < needed:
            raise TrainingStopped(
                f"{free / 2**20:.0f} MB are free at {self._watch.folder}; three checkpoints take "
                f"{needed / 2**20:.0f} MB",
                why="a full disk in the middle of a run loses work",
                fix="free some space, or choose another --out; then continue with --resume",
                rule="F9",
            )
