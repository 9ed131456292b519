"""Train a recipe from beginning to end: ``train_recipe(load_recipe(path), Path("runs/x"))``."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from glottis.data.loader import workers_named
from glottis.errors import ConfigError, ModelError, TrainingStopped
from glottis.train import distributed
from glottis.train.assemble import Outcome, assemble
from glottis.train.checkpoint import phase_of, resumable, writing
from glottis.train.distributed import peers_named
from glottis.train.ending import finish
from glottis.train.engine import Trainer
from glottis.train.recipe import Recipe
from glottis.train.signals import Signals
from glottis.train.state import State
from glottis.train.step import first_line, out_of_memory

log = logging.getLogger(__name__)


def train_recipe(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train; returns what happened, which is also in ``finished.json``.

    out: run folder.  resume: continue the run in it (from its start if it has no checkpoint yet).
    checkpoint: continue from this one (a checkpoint, or a run folder: its newest) instead.
    """
    if checkpoint is not None:
        if not resume:
            raise ConfigError("a checkpoint to continue from was given without resume")
        checkpoint = resumable(checkpoint)
    with _logged(out) as begin_log:
        outcome = assemble(recipe, out, resume=resume)
        trainer = outcome.trainer
        if trainer.run.primary:
            begin_log()
        try:
            with Signals() as signals, workers_named(), peers_named(), memory_named():
                trainer, state = _all_phases(outcome, signals, resume, checkpoint)
            calibrates = outcome.calibrates is not None
            result = finish(trainer, state, recipe.evaluate.select, calibrates)
        finally:
            trainer.trackers.close()
    distributed.stop()
    return result


def _all_phases(
    outcome: Outcome, signals: Signals, resume: bool, checkpoint: Path | None
) -> tuple[Trainer, State]:
    trainer, state = _start(outcome, resume, checkpoint)
    while True:
        trainer.signals = signals
        state = trainer.train(state)
        ended = trainer.patience_lost(state) or state.stopped
        if ended or state.phase + 1 == trainer.phases:
            return trainer, state
        state.next_phase(trainer.phase.steps_per_epoch)
        sizes = set(trainer.task.embedder.dims)
        trainer = outcome.enter(state.phase, trainer)
        log.info("%s", outcome.stages.plan(state.phase))
        if not sizes.issuperset(trainer.task.embedder.dims):
            state.forget_best()
            trainer.average.forget()
            log.info("new sizes of the embedding: the best checkpoint is one of those with them")


@contextmanager
def memory_named() -> Iterator[None]:
    """Memory that does not suffice outside of a step's forward and backward ends the run calmly."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise TrainingStopped(
            f"there is not enough memory ({first_line(error)})",
            why="it was not the batch of a step, which is made smaller: an evaluation, the "
            "moments of the optimiser, or a checkpoint",
            fix="lower evaluate.batch_seconds, or take a smaller model; then continue with "
            "--resume",
        ) from error


def _start(outcome: Outcome, resume: bool, checkpoint: Path | None) -> tuple[Trainer, State]:
    trainer = outcome.trainer
    run = trainer.run
    source = checkpoint or (run.checkpoints.latest() if resume else None)
    log.info("run %s: %s on %s", run.run_id, trainer.task.embedder.name, trainer.precision.device)
    for number in range(len(outcome.stages)):
        log.info("%s", outcome.stages.plan(number))
    if outcome.calibrates is not None:
        log.info("then '%s': scale and offset of the scores; nothing learns", outcome.calibrates)
    if source is None:
        if run.continues:
            log.info("nothing was saved yet: starting from the beginning")
            run.resumed(0, None)
        run.forget_after(0)
        return trainer, State()
    number, refrozen = phase_of(source)
    if number >= len(outcome.stages):
        raise ModelError(
            f"{source} is of phase {number + 1}; this recipe has {len(outcome.stages)}",
            fix="resume with the recipe of that run, or start a new run with init=",
            rule="C8",
        )
    if number > 0:
        trainer = outcome.enter(number)
    if refrozen:
        outcome.stages.refreeze(number, trainer)
    state = trainer.restore(source)
    run.resumed(state.step, source)
    ends = state.phase_start + trainer.phase.steps
    if run.primary and (state.step < ends or number + 1 < trainer.phases):
        (run.folder / "finished.json").unlink(missing_ok=True)  # it went back
    log.info("continuing after step %d (%s)", state.step, source)
    return trainer, state


class _LogFile(logging.FileHandler):
    """``train.log``: a line that cannot be written stops the run, as any other lost record."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        with writing(self.baseFilename):
            raise error

    def end(self, reason: object, *, grade: int) -> None:
        """The last line of a run that stopped; only here: whoever catches the error shows it."""
        line = logging.LogRecord("glottis.train", grade, "", 0, "stopped: %s", (reason,), None)
        with suppress(TrainingStopped):  # on a full disk the error itself has to do
            self.handle(line)


@contextmanager
def _logged(out: Path) -> Iterator[Callable[[], None]]:
    """Keep what is said; once the folder exists it goes to ``train.log``, from the first line."""
    root = logging.getLogger("glottis")
    level = root.level
    first = os.environ.get("RANK", "0") == "0"  # of several processes one speaks
    root.setLevel(logging.INFO if first else logging.ERROR)
    memory = logging.handlers.MemoryHandler(capacity=10**6, flushLevel=logging.CRITICAL + 1)
    root.addHandler(memory)
    opened: list[_LogFile] = []

    def begin() -> None:
        opened.append(_LogFile(out / "train.log"))
        memory.setTarget(opened[0])
        memory.flush()
        root.removeHandler(memory)
        root.addHandler(opened[0])

    try:
        yield begin
    except KeyboardInterrupt:
        for file in opened:
            file.end("interrupted", grade=logging.WARNING)
        raise
    except Exception as error:
        for file in opened:
            file.end(error, grade=logging.ERROR)
        raise
    finally:
        root.setLevel(level)
        for handler in (memory, *opened):
            root.removeHandler(handler)
        memory.setTarget(None)
        memory.close()
        for file in opened:
            with suppress(OSError):  # of a full disk, which has stopped the run already
                file.close()
