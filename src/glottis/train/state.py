"""Where a run is, and what a phase of it does: what the loop and its helpers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from glottis.score import Comparison
from glottis.train.phases import Ramp
from glottis.train.task import Task


@dataclass(frozen=True)
class Evaluation:
    """What selection sees: numbers for the log, and the one that chooses (lower is better).

    selects: None where nothing was measured that may choose.  scores: (N,) of the trials, in the
    order of the list.
    """

    values: dict[str, float]
    selects: float | None
    card: dict[str, Any]
    scores: np.ndarray | None = None


class Evaluator(Protocol):
    """Measures the task on development data, in all processes at once."""

    def __call__(self, task: Task) -> Evaluation: ...

    def compare(self, best: np.ndarray, now: np.ndarray) -> Comparison:
        """The EER of these scores against that of the best so far, on the same trials."""
        ...


@dataclass(frozen=True)
class Phase:
    """How long to train, and what happens at which interval (all in steps).

    number: from 0.  patience: evaluations without a better result after which the run ends;
    until_plateau: after which the phase ends.  margin, strength: of the loss and of the
    augmentation, over the phase.
    """

    steps: int
    steps_per_epoch: int
    accumulation: int
    clip_norm: float
    log_every: int
    evaluate_every: int
    save_every: int
    seed: int
    non_blocking: bool
    patience: int | None = None
    name: str = "training"
    number: int = 0
    until_plateau: int | None = None
    margin: Ramp | None = None
    strength: Ramp | None = None


@dataclass
class State:
    """Where the run is: steps made, the best evaluation so far, seconds that it took.

    since_best: evaluations of the phase after the best one.  phase_start: steps made before the
    phase; epochs: passes over the data before it.  best_scores: of the best evaluation.
    worse: evaluations in a row that were worse than it beyond doubt.  refrozen: a guard has frozen
    again what the phase before had frozen.  stopped: why a guard ended the run.  in_fp32: modules
    whose numbers were too large for half precision.
    """

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    since_best: int = 0
    latest: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    phase: int = 0
    phase_start: int = 0
    epochs: float = 0.0
    best_scores: np.ndarray | None = None
    worse: int = 0
    refrozen: bool = False
    stopped: str = ""
    in_fp32: list[str] = field(default_factory=list)

    def next_phase(self, steps_per_epoch: int) -> None:
        """The steps that follow are those of the next phase."""
        self.epochs += (self.step - self.phase_start) / steps_per_epoch
        self.phase, self.phase_start, self.since_best = self.phase + 1, self.step, 0
        self.worse, self.refrozen = 0, False

    def forget_best(self) -> None:
        """The best is one of the evaluations that follow."""
        self.best = self.best_step = self.best_scores = None
        self.since_best = self.worse = 0

    def update_best(self, evaluation: Evaluation) -> bool:
        """Whether this evaluation is the best; on a tie the earlier one stays."""
        if evaluation.selects is None:
            return False
        if self.best is not None and evaluation.selects >= self.best:
            self.since_best += 1
            return False
        self.best, self.best_step, self.since_best = evaluation.selects, self.step, 0
        self.best_scores, self.worse = evaluation.scores, 0
        return True

    def saved(self) -> dict[str, Any]:
        """Plain data and tensors for a checkpoint."""
        values = {name: getattr(self, name) for name in _SAVED}
        scores = None if self.best_scores is None else torch.tensor(self.best_scores)
        return {**values, "best_scores": scores}

    @classmethod
    def restored(cls, saved: Mapping[str, Any], best: float | None, best_step: int | None) -> State:
        """What `saved` gave; files of earlier versions lack some of it.

        best, best_step: None if that checkpoint is gone.
        """
        state = cls(**{name: saved[name] for name in _SAVED if name in saved})
        state.best, state.best_step = best, best_step
        if best is None:
            state.since_best = state.worse = 0
        else:
            state.best_scores = _array(saved.get("best_scores"))
        return state


_SAVED = (
    *("step", "best", "best_step", "since_best", "latest", "seconds"),
    *("phase", "phase_start", "epochs", "worse", "refrozen", "stopped"),
    "in_fp32",
)


def _array(value: Tensor | None) -> np.ndarray | None:
    return None if value is None else value.cpu().numpy()
