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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from glottis.audio import Broken, Quarantine
from glottis.data.batch import Batch
from glottis.data.loader import Loader
from glottis.errors import ModelError
from glottis.train import distributed
from glottis.train.averaging import Averaging, MovingAverage
from glottis.train.checkpoint import load_state, read_weights
from glottis.train.guards import Guard, Watch
from glottis.train.monitor import Monitor
from glottis.train.nonfinite import remedy
from glottis.train.optim import Optimiser
from glottis.train.precision import Precision
from glottis.train.progress import Progress
from glottis.train.recovery import recover, shapes
from glottis.train.run import Run
from glottis.train.runtime import in_fp32
from glottis.train.signals import Signals, stopped_by
from glottis.train.state import Evaluation, Evaluator, Phase, State
from glottis.train.step import Pieces, step, step_seed
from glottis.train.task import Task
from glottis.train.trackers import Trackers
from glottis.train.window import Window

log = logging.getLogger(__name__)


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
    signals: Signals = field(default_factory=Signals)
    phases: int = 1
    recipe: Any = None
    pieces: Pieces = field(default_factory=Pieces)
    refreeze: Callable[[Trainer], None] | None = None
    average: Averaging = field(default_factory=Averaging)
    _unreported: list[Broken] = field(default_factory=list)
    num_classes: int = 0
    _began: float = 0.0
    _evaluated: float = 0.0

    def train(self, state: State) -> State:
        """From ``state`` to the last step of the phase."""
        phase, device, start = self.phase, self.precision.device, state.phase_start
        window = self.window = Window(device)
        monitor = Monitor(device)
        progress = Progress(state.step - start, phase.steps, phase.steps_per_epoch)
        batches = self.loader.batches(state.step - start, phase.steps)
        self._set_margin(state.step - start)
        self.brief()
        self.task.train()
        first = state.step + 1
        began = time.monotonic() - state.seconds
        self._began, self._evaluated = time.monotonic(), 0.0
        try:
            while state.step - start < phase.steps and not self._ended_early(state):
                self._set_margin(state.step - start)
                with window.waiting():
                    batch = next(batches)
                self.meet_broken(batch)
                # dropout is a function of (seed, step) too: no generator state to restore
                torch.manual_seed(step_seed(phase.seed, state.step, distributed.rank()))
                stats = step(
                    self.task,
                    batch.to(device, non_blocking=phase.non_blocking),
                    self.optim,
                    self.precision,
                    pieces=self.pieces,
                    clip_norm=phase.clip_norm,
                    measure=(state.step - start + 1) % phase.log_every == 0,
                )
                state.step += 1
                self.average.after_step(self.task.embedder, stats["skipped"] == 0)
                if state.step == first:
                    self.task.require_gradients()
                    self.optim.require_complete(self.task)
                window.add(stats, batch, state.step)
                done = state.step - start
                evaluates = done % phase.evaluate_every == 0 or done == phase.steps
                saves = done % phase.save_every == 0 or evaluates
                asked = self.signals.asked(agreed=saves)
                if done % phase.log_every == 0 or saves or asked:
                    self._log(state, window.read() | self._rates(done) | monitor.read(), progress)
                best = evaluates and self._evaluate(state, progress)
                state.seconds = time.monotonic() - began
                if saves:
                    self.average.before_save(state.step)
                    self.save(state, best=best)
                    window.restart()
                asked = asked or self.signals.asked(agreed=saves)
                if asked:
                    if not saves:
                        self.save(state, best=False)
                    raise stopped_by(asked, state.step, self.run.folder)
            state.seconds = time.monotonic() - began
        finally:
            progress.close()
        return state

    def brief(self) -> None:
        """Tell the guards what is: at the start, and when weights or frozen parts are others."""
        copies = 4 if isinstance(self.average, MovingAverage) else 3  # weights and two moments
        size = sum(p.numel() * p.element_size() for p in self.task.parameters())
        watch = Watch(self.run.folder, self.task, self.num_classes, copies * size + 2**20)
        for guard in self.guards:
            guard.before_run(watch)

    def patience_lost(self, state: State) -> bool:
        """Whether the run ends before its last step (also when it is resumed after that)."""
        patience = self.phase.patience
        return patience is not None and state.since_best >= patience

    def _ended_early(self, state: State) -> bool:
        plateau = self.phase.until_plateau
        if state.stopped:
            return True
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

    def _rates(self, done: int) -> dict[str, float]:
        found = {"rate": float(self.optim.rate()), "loss_scale": float(self.precision.scale)}
        for name, factor in self.optim.parts.items():
            found[f"rate_{name}"] = found["rate"] * factor
        strength = self.phase.strength
        if strength is not None:  # of the step that was made last
            found["strength"] = strength.value(done - 1, self.phase.steps_per_epoch)
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

    def meet_broken(self, batch: Batch) -> None:
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
            verdict = guard.after_step(state.step, values)
            if verdict is not None:
                remedy(self, state, verdict)

    def _evaluate(self, state: State, progress: Progress) -> bool:
        if self.evaluator is None:
            return False
        began = time.monotonic()
        with self.average.shown(self.task.embedder):
            result = self.evaluator(self.task)
        self.task.train()
        best = state.update_best(result)
        self.average.after_eval(state.step, result.selects)
        state.latest = result.card
        found = result.values | self._against_best(state, result, best)
        found["dev/seconds"] = time.monotonic() - began
        self._evaluated += found["dev/seconds"]
        found["dev/share_of_time"] = self._evaluated / (time.monotonic() - self._began)
        record = {**self._place(state), **found}
        self.run.log(state.step, record)
        if self.run.primary:
            self.trackers.log(state.step, record)
            shown = "  ".join(
                _shown(name, value)
                for name, value in result.values.items()
                if name.count("/") == 1 or name.endswith("/eer")  # of each size one number
            )
            progress.message(f"step {state.step}: {shown}{'  (best so far)' if best else ''}")
        verdicts = [guard.after_eval(state.step, found) for guard in self.guards]
        for verdict in filter(None, verdicts):
            recover(self, state, verdict)
        return best

    def _against_best(self, state: State, result: Evaluation, best: bool) -> dict[str, float]:
        """The paired difference to the best evaluation; how often in a row it was beyond doubt."""
        earlier, now = state.best_scores, result.scores
        if best or self.evaluator is None or earlier is None or now is None:
            return {}
        found = self.evaluator.compare(earlier, now)
        values = {"dev/minus_best": found.difference}
        if found.low is None or found.high is None:
            return values
        state.worse = state.worse + 1 if found.low > 0 else 0
        values |= {"dev/minus_best_low": found.low, "dev/minus_best_high": found.high}
        return values | {"dev/worse_in_a_row": float(state.worse)}

    def save(self, state: State, *, best: bool) -> None:
        """A checkpoint of everything (the first process writes)."""
        if self.run.primary:
            saved = self._state_dict(state)
            with self.average.shown(self.task.embedder):
                path = self.run.checkpoints.save(
                    self.task.embedder,
                    saved,
                    self.card | {"step": state.step, "development": state.latest},
                    step=state.step,
                    best=best,
                    also=self.average.steps,
                )
            log.info("saved %s", path)
        distributed.barrier()

    def _state_dict(self, state: State) -> dict[str, Any]:
        return {
            "run_id": self.run.run_id,
            **state.saved(),
            "pieces": self.pieces.count,
            "guards": {type(guard).__name__: guard.saved() for guard in self.guards},
            "label_map": list(self.task.label_map),
            "head": self.task.head.state_dict(),
            "precision": self.precision.state_dict(),
            **self.optim.state_dict(),
            **self.average.state_dict(self.task.embedder),
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
        self.average.restore(self.task.embedder, saved, self.run.checkpoints)
        if shapes(saved["head"]) != shapes(self.task.head.state_dict()):
            raise ModelError(
                f"the loss of {checkpoint} has other weights than that of this recipe",
                fix="resume with the recipe of that run, or start a new run with init=",
                rule="C8",
            )
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
        self.pieces.count = max(self.pieces.count, saved.get("pieces", 1))
        for guard in self.guards:
            kept = saved.get("guards", {}).get(type(guard).__name__)
            if kept:
                guard.restore(kept)
        state = State.restored(saved, best, best_step)
        for name in state.in_fp32:
            in_fp32(self.task.get_submodule(name))
        return state


def _shown(name: str, value: float) -> str:
    """``dev/eer 4.58 %``, ``dev/cllr 0.3120``."""
    is_rate = name.rpartition("/")[2].startswith("eer")
    return f"{name} {100 * value:.2f} %" if is_rate else f"{name} {value:.4f}"
