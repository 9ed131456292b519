"""The loop of one phase.  One iteration = one optimiser step.

state = restore                      where the run is
for batch in the data from there:    sample i of step s is a pure function of (seed, s, i)
    step                             forward, backward, check, clip, update
    at intervals: log, evaluate, save

Steps are counted through all phases; what a phase does is a function of its own steps.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from glottis.audio import Broken, Quarantine
from glottis.data.batch import Batch
from glottis.data.loader import Loader
from glottis.errors import ModelError
from glottis.rng import stream_key
from glottis.train import distributed
from glottis.train.checkpoint import load_state, read_weights
from glottis.train.guards import Guard
from glottis.train.monitor import Monitor
from glottis.train.optim import Optimiser
from glottis.train.phases import Ramp
from glottis.train.precision import Precision
from glottis.train.progress import Progress
from glottis.train.run import Run
from glottis.train.step import step
from glottis.train.task import Task
from glottis.train.trackers import Trackers
from glottis.train.window import Window

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What selection sees: numbers for the log, and the one that chooses (lower is better).

    selects: None where nothing was measured that may choose.
    """

    values: dict[str, float]
    selects: float | None
    card: dict[str, Any]


class Evaluator(Protocol):
    """Measures the task on development data, in all processes at once."""

    def __call__(self, task: Task) -> Evaluation: ...


@dataclass(frozen=True)
class Phase:
    """How long to train, and what happens at which interval (all in steps).

    number: from 0.  patience: evaluations without a better result after which the run ends;
    until_plateau: after which the phase ends.  margin: of the loss, over the phase.
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


@dataclass
class State:
    """Where the run is: steps made, the best evaluation so far, seconds that it took.

    since_best: evaluations of the phase after the best one.  phase_start: steps made before the
    phase; epochs: passes over the data before it.
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

    def next_phase(self, steps_per_epoch: int) -> None:
        """The steps that follow are those of the next phase."""
        self.epochs += (self.step - self.phase_start) / steps_per_epoch
        self.phase, self.phase_start, self.since_best = self.phase + 1, self.step, 0

    def update_best(self, evaluation: Evaluation) -> bool:
        """Whether this evaluation is the best; on a tie the earlier one stays."""
        if evaluation.selects is None:
            return False
        if self.best is not None and evaluation.selects >= self.best:
            self.since_best += 1
            return False
        self.best, self.best_step, self.since_best = evaluation.selects, self.step, 0
        return True


@dataclass
class Trainer:
    """Everything the loop uses, made by `glottis.train.assemble`."""

    task: Task
    loader: Loader
    optim: Optimiser
    precision: Precision
    phase: Phase
    evaluator: Evaluator | None
    guards: list[Guard]
    run: Run
    trackers: Trackers
    quarantine: Quarantine
    card: dict[str, Any]
    phases: int = 1
    _unreported: list[Broken] = field(default_factory=list)

    def train(self, state: State) -> State:
        """From ``state`` to the last step of the phase."""
        phase, device, start = self.phase, self.precision.device, state.phase_start
        window = Window(device)
        monitor = Monitor(device)
        progress = Progress(state.step - start, phase.steps, phase.steps_per_epoch)
        batches = self.loader.batches(state.step - start, phase.steps)
        self.task.train()
        first = state.step + 1
        began = time.monotonic() - state.seconds
        try:
            while state.step - start < phase.steps and not self._ended_early(state):
                self._set_margin(state.step - start)
                with window.waiting():
                    batch = next(batches)
                self._meet_broken(batch)
                # dropout is a function of (seed, step) too: no generator state to restore
                torch.manual_seed(stream_key(phase.seed, "step", state.step, distributed.rank())[0])
                stats = step(
                    self.task,
                    batch.to(device, non_blocking=phase.non_blocking),
                    self.optim,
                    self.precision,
                    accumulation=phase.accumulation,
                    clip_norm=phase.clip_norm,
                )
                state.step += 1
                if state.step == first:
                    self.task.require_gradients()
                window.add(stats, batch)
                done = state.step - start
                evaluates = done % phase.evaluate_every == 0 or done == phase.steps
                saves = done % phase.save_every == 0 or evaluates
                if done % phase.log_every == 0 or saves:
                    self._log(state, window.read() | self._rates() | monitor.read(), progress)
                best = evaluates and self._evaluate(state, progress)
                state.seconds = time.monotonic() - began
                if saves:
                    self.save(state, best=best)
                    window.restart()
            state.seconds = time.monotonic() - began
        finally:
            progress.close()
        return state

    def patience_lost(self, state: State) -> bool:
        """Whether the run ends before its last step (also when it is resumed after that)."""
        patience = self.phase.patience
        return patience is not None and state.since_best >= patience

    def _ended_early(self, state: State) -> bool:
        plateau = self.phase.until_plateau
        if self.patience_lost(state):
            key, what = "evaluate.patience", "stopping"
        elif plateau is not None and state.since_best >= plateau:
            key, what = "until_plateau", f"the phase '{self.phase.name}' ends"
        else:
            return False
        log.info(
            "%s at step %d of %d: the last %d evaluations (%s) were not better than that of "
            "step %s",
            *(what, state.step, state.phase_start + self.phase.steps),
            *(state.since_best, key, state.best_step),
        )
        return True

    def _set_margin(self, done: int) -> None:
        ramp = self.phase.margin
        if ramp is not None:
            self.task.head.set_margin(ramp.value(done, self.phase.steps_per_epoch))

    def _rates(self) -> dict[str, float]:
        found = {"rate": float(self.optim.rate()), "loss_scale": float(self.precision.scale)}
        for name, factor in self.optim.parts.items():
            found[f"rate_{name}"] = found["rate"] * factor
        margin = getattr(self.task.head, "margin", None)
        return found if margin is None else found | {"margin": float(margin)}

    def epoch(self, state: State) -> float:
        """Passes over the training data so far."""
        done = (state.step - state.phase_start) / self.phase.steps_per_epoch
        return round(state.epochs + done, 4)

    def _place(self, state: State) -> dict[str, float]:
        """Where the run is, for a line of metrics."""
        place = {"epoch": self.epoch(state)}
        return place | {"phase": state.phase} if self.phases > 1 else place

    def _meet_broken(self, batch: Batch) -> None:
        """Note what a worker could not read; of several processes the first must hear of it."""
        self._unreported += batch.broken
        if distributed.world() == 1:
            self._report_broken()

    def _report_broken(self) -> None:
        records, self._unreported = distributed.gather_lists(self._unreported), []
        new = {r.utterance: r for r in records if r.utterance not in self.quarantine}
        for broken in new.values():
            log.warning("%s cannot be read and is left out: %s", broken.utterance, broken.reason)
        self.quarantine.add_records(new.values())

    def _log(self, state: State, values: dict[str, float], progress: Progress) -> None:
        if distributed.world() > 1:
            self._report_broken()
        record = {**self._place(state), **{f"train/{k}": v for k, v in values.items()}}
        self.run.log(state.step, record)
        if self.run.primary:
            self.trackers.log(state.step, record)
            progress.update(state.step - state.phase_start, values)
        for guard in self.guards:
            guard.after_step(state.step, values)

    def _evaluate(self, state: State, progress: Progress) -> bool:
        if self.evaluator is None:
            return False
        began = time.monotonic()
        result = self.evaluator(self.task)
        self.task.train()
        best = state.update_best(result)
        state.latest = result.card
        record = {**self._place(state), **result.values}
        record["dev/seconds"] = time.monotonic() - began
        self.run.log(state.step, record)
        if self.run.primary:
            self.trackers.log(state.step, record)
            shown = "  ".join(
                _shown(name, value)
                for name, value in result.values.items()
                if name.count("/") == 1 or name.endswith("/eer")  # of each size one number
            )
            progress.message(f"step {state.step}: {shown}{'  (best so far)' if best else ''}")
        for guard in self.guards:
            guard.after_eval(state.step, result.values)
        return best

    def save(self, state: State, *, best: bool) -> None:
        """A checkpoint of everything (the first process writes)."""
        if self.run.primary:
            path = self.run.checkpoints.save(
                self.task.embedder,
                self._state_dict(state),
                self.card | {"step": state.step, "development": state.latest},
                step=state.step,
                best=best,
            )
            log.info("saved %s", path)
        distributed.barrier()

    def _state_dict(self, state: State) -> dict[str, Any]:
        return {
            "run_id": self.run.run_id,
            "step": state.step,
            "best": state.best,
            "best_step": state.best_step,
            "since_best": state.since_best,
            "latest": state.latest,
            "seconds": state.seconds,
            "phase": state.phase,
            "phase_start": state.phase_start,
            "epochs": state.epochs,
            "label_map": list(self.task.label_map),
            "head": self.task.head.state_dict(),
            "precision": self.precision.state_dict(),
            **self.optim.state_dict(),
        }

    def restore(self, checkpoint: Path) -> State:
        """Continue from a checkpoint folder, bit for bit."""
        saved = load_state(checkpoint, self.precision.device)
        if saved["label_map"] != list(self.task.label_map):
            raise ModelError(
                f"the classes of {checkpoint} are not those of the training data",
                why="the classifier's rows would belong to other speakers",
                fix="resume with the data that the run was started with",
                rule="P4",
            )
        self.task.embedder.load_state_dict(read_weights(checkpoint), strict=True)
        self.task.head.load_state_dict(saved["head"])
        self.optim.load_state_dict(saved)
        self.precision.load_state_dict(saved["precision"])
        if saved["run_id"] != self.run.run_id:
            log.warning(
                "%s is of run %s, this is run %s: recipe, data or code differ",
                *(checkpoint, saved["run_id"], self.run.run_id),
            )
        best, best_step = saved["best"], saved["best_step"]
        checkpoints = self.run.checkpoints
        if best_step is not None and not checkpoints.holds(best_step):
            log.warning(
                "the best checkpoint so far (step %d) is not in %s: the best will be one of "
                "those that follow",
                *(best_step, checkpoints.folder),
            )
            best = best_step = None
        distributed.barrier()  # all have looked
        if self.run.primary:
            checkpoints.point_best(best_step)
        self.run.forget_after(saved["step"])
        # files of earlier versions hold neither seconds nor since_best
        return State(
            saved["step"],
            best,
            best_step,
            0 if best is None else saved.get("since_best", 0),
            saved["latest"],
            saved.get("seconds", 0.0),
            saved.get("phase", 0),
            saved.get("phase_start", 0),
            saved.get("epochs", 0.0),
        )


def _shown(name: str, value: float) -> str:
    """``dev/eer 4.58 %``, ``dev/cllr 0.3120``."""
    is_rate = name.rpartition("/")[2].startswith("eer")
    return f"{name} {100 * value:.2f} %" if is_rate else f"{name} {value:.4f}"
