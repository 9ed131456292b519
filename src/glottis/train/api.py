"""Train a recipe from beginning to end: ``train_recipe(load_recipe(path), Path("runs/x"))``."""

from __future__ import annotations

import logging
import logging.handlers
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glottis.errors import ConfigError
from glottis.files import write_json
from glottis.train import distributed
from glottis.train.assemble import assemble
from glottis.train.checkpoint import resumable
from glottis.train.engine import State, Trainer
from glottis.train.recipe import Recipe

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
        trainer = assemble(recipe, out, resume=resume).trainer
        if trainer.run.primary:
            begin_log()
        began = time.monotonic()
        try:
            state = trainer.train(_start(trainer, resume, checkpoint))
        finally:
            trainer.trackers.close()
        result = _finish(trainer, state, time.monotonic() - began)
    distributed.stop()
    return result


def _start(trainer: Trainer, resume: bool, checkpoint: Path | None) -> State:
    source = checkpoint or (trainer.run.checkpoints.latest() if resume else None)
    run, phase = trainer.run, trainer.phase
    log.info(
        "run %s: %s, %d steps of %d per epoch, batch %d, %s on %s",
        run.run_id,
        trainer.task.embedder.name,
        phase.steps,
        phase.steps_per_epoch,
        trainer.loader.sampler.batch_size,
        trainer.precision.name,
        trainer.precision.device,
    )
    if source is None:
        if resume:
            log.info("nothing was saved yet: starting from the beginning")
        trainer.run.forget_after(0)
        return State()
    state = trainer.restore(source)
    log.info("continuing after step %d (%s)", state.step, source)
    return state


def _finish(trainer: Trainer, state: State, seconds: float) -> dict[str, Any]:
    run = trainer.run
    best = run.checkpoints.folder / "best"
    result = {
        "run_id": run.run_id,
        "folder": str(run.folder),
        "steps": state.step,
        "epochs": round(state.step / trainer.phase.steps_per_epoch, 2),
        "seconds": round(seconds, 1),
        "best_step": state.best_step,
        "best_development": state.best,
        "checkpoint": str(best if best.exists() else run.checkpoints.folder / "latest"),
        "quarantined": len(trainer.quarantine.entries),
    }
    if run.primary:
        write_json(run.folder / "finished.json", result)
        log.info("finished after %d steps in %.0f s", state.step, seconds)
    return result


@contextmanager
def _logged(out: Path) -> Iterator[Any]:
    """Keep what is said; once the folder exists it goes to ``train.log``, from the first line."""
    root = logging.getLogger("glottis")
    level = root.level
    first = os.environ.get("RANK", "0") == "0"  # of several processes one speaks
    root.setLevel(logging.INFO if first else logging.WARNING)
    memory = logging.handlers.MemoryHandler(capacity=10**6, flushLevel=logging.CRITICAL + 1)
    root.addHandler(memory)
    opened: list[logging.FileHandler] = []

    def begin() -> None:
        handler = logging.FileHandler(out / "train.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        memory.setTarget(handler)
        memory.flush()
        memory.capacity = 1  # from now on every line at once
        opened.append(handler)

    try:
        yield begin
    except (Exception, KeyboardInterrupt) as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        grade = logging.WARNING if interrupted else logging.ERROR
        reason = "interrupted" if interrupted else error
        for handler in opened:  # only the file: whoever catches the error shows it
            handler.handle(log.makeRecord(log.name, grade, "", 0, "stopped: %s", (reason,), None))
        raise
    finally:
        root.removeHandler(memory)
        root.setLevel(level)
        memory.close()
        for handler in opened:
            handler.close()
