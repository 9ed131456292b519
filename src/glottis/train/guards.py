"""Small watchers of a run, three hooks each: before_run, after_step, after_eval.

A guard may warn in the log or raise `TrainingStopped`.  It sees numbers only at the log interval
(``values``); at other steps it gets nothing that would have to be read from the device.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from glottis.config import Config
from glottis.errors import TrainingStopped
from glottis.train import distributed
from glottis.train.forensics import poisoned
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
    bad_step: a step that was not finite, to be looked at; back is then to the last checkpoint
    before the first of them, ``since``.
    """

    action: Literal["roll back", "stop"]
    why: str
    lower: float = 1.0
    freeze: bool = False
    bad_step: int | None = None
    since: int = 0


class Guard:
    """Base: does nothing."""

    def before_run(self, watch: Watch) -> None:
        """Once, before the first step."""

    def after_step(self, step: int, values: Mapping[str, float]) -> Verdict | None:
        """At each log interval, with the means since the last one."""
        return None

    def saved(self) -> dict[str, Any]:
        """Plain data that a resumed run needs."""
        return {}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """What `saved` gave."""

    def after_eval(self, step: int, values: Mapping[str, float]) -> Verdict | None:
        """After each evaluation."""
        return None


class NonFiniteConfig(Config):
    """What to do when too many steps are not finite."""

    action: Literal["lower", "stop"] = "lower"
    """Back to the last good checkpoint, and on with a lower rate (a half-precision module whose
    output was the first bad one goes on in float32 instead); or stop."""
    factor: float = Field(0.3, gt=0, lt=1)
    """What ``lower`` multiplies the rate of the network by."""
    attempts: int = Field(3, ge=1)
    """How often before the run stops after all."""


class FiniteGuard(Guard):
    """Acts when more than ``budget`` of the last 1,000 steps were not finite (rule H1).

    Weights or buffers that are not finite count at once, whatever the budget.  Steps that fp16
    skips to find its loss scale are counted apart.
    """

    def __init__(self, budget: int, config: NonFiniteConfig) -> None:
        self.budget = budget
        self.action, self.factor, self.attempts = config.action, config.factor, config.attempts
        self._windows: deque[tuple[int, float, int]] = deque()  # at, how many, the first
        self._acted = 0

    def before_run(self, watch: Watch) -> None:
        self._task = watch.task

    def after_step(self, step: int, values: Mapping[str, float]) -> Verdict | None:
        skipped = values.get("skipped_steps", 0) - values.get("overflow_steps", 0)
        first = int(values.get("first_skipped", step))
        if skipped:
            self._windows.append((step, skipped, first))
            log.warning(
                "%d step(s) were not finite and changed nothing; the first was step %d",
                *(skipped, first),
            )
        while self._windows and self._windows[0][0] <= step - 1000:
            self._windows.popleft()
        total = sum(count for _, count, _ in self._windows)
        bad = next(filter(None, distributed.gather_lists([poisoned(self._task)])), None)
        if total <= self.budget and bad is None:
            return None
        why = f"[H1] {bad.where} are not finite" if bad else (
            f"[H1] {total:.0f} of the last 1,000 steps had a loss or gradient that was not finite "
            f"(allowed: train.skipped_budget={self.budget})"
        )  # fmt: skip
        since = self._windows[0][2] if self._windows else first
        self._windows.clear()
        self._acted += 1
        stops = self.action == "stop"
        if not stops and self._acted > self.attempts:
            stops, why = True, f"{why}; {self.attempts} remedies did not last"
        action: Literal["roll back", "stop"] = "stop" if stops else "roll back"
        return Verdict(action, why, lower=self.factor, bad_step=first, since=since)

    def saved(self) -> dict[str, Any]:
        return {"windows": [list(window) for window in self._windows], "acted": self._acted}

    def restore(self, saved: Mapping[str, Any]) -> None:
        windows = saved["windows"]
        self._windows = deque((int(at), float(count), int(first)) for at, count, first in windows)
        self._acted = int(saved["acted"])


class ChanceGuard(Guard):
    """Warns if the loss does not begin at chance (O6) or is still there after three epochs (O7).

    A network at random gives embeddings that are more or less alike: its first loss lies between
    the value of chance and that of collapse, or near them.
    """

    def __init__(self, steps_per_epoch: int) -> None:
        self._began = False
        self.after = max(50, 3 * steps_per_epoch)
        self._first: int | None = None
        self._told = False

    def before_run(self, watch: Watch) -> None:
        self._watch = watch
        self._measure()
        log.info("a loss of %.3f is chance for %d classes", self._chance, watch.num_classes)

    def _measure(self) -> None:
        """With the margin of now."""
        self._chance = self._watch.task.head.chance_loss(self._watch.num_classes)
        self._collapse = self._watch.task.head.collapse_loss(self._watch.num_classes)

    def _begins(self, loss: float) -> None:
        around = [self._chance, self._chance if self._collapse is None else self._collapse]
        if loss > 1.5 * max(around):
            log.warning(
                "[O6] the first loss is %.3f, far above chance (%.3f): labels or the scale of the "
                "loss are wrong, or init does not fit",
                *(loss, self._chance),
            )
        elif loss < min(around) / 1.5:
            log.warning(
                "[O6] the first loss is %.3f, far below chance (%.3f): the labels are in the data, "
                "or these weights have learned them",
                *(loss, self._chance),
            )

    def after_step(self, step: int, values: Mapping[str, float]) -> None:
        if not self._began and "first_loss" in values:
            self._began = True
            self._begins(values["first_loss"])
        self._first = step if self._first is None else self._first
        if self._told or step - self._first < self.after or "loss" not in values:
            return
        self._measure()
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
