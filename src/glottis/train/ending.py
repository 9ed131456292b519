"""What follows the last step: the average of checkpoints, calibration, and what came out."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn

from glottis.data.loader import workers_named
from glottis.errors import ResultError
from glottis.files import write_json
from glottis.rng import stream_key
from glottis.score import fit_calibration
from glottis.train import distributed
from glottis.train.averaging import CheckpointMean, float_only
from glottis.train.checkpoint import read_weights, writing
from glottis.train.engine import Trainer
from glottis.train.evaluation import SpeakerSelection, SpoofSelection
from glottis.train.state import Evaluation, State

log = logging.getLogger(__name__)


def finish(trainer: Trainer, state: State, select: str, calibrates: bool) -> dict[str, Any]:
    """Average and calibrate where the recipe asks for it; the result is also ``finished.json``.

    select: name of the development number that chose the best.
    """
    run = trainer.run
    with workers_named():
        average = average_at_end(trainer, state)
    folder = run.checkpoints.folder
    chosen = folder / "best" if (folder / "best").exists() else folder / "latest"
    made = None
    if average is not None:
        assert average.selects is not None
        if state.best is None or average.selects < state.best:
            chosen = folder / "average"
        made = {"averaged_steps": list(trainer.average.steps), "development": average.selects}
        log.info(
            "development %s: %s of the average, %s of the best (step %s); the run's own is '%s'",
            *(select, average.selects, state.best, state.best_step, chosen.name),
        )
    calibrations = {}
    if calibrates:
        scores = {"best": state.best_scores, "average": average.scores if average else None}
        calibrations = calibrate(trainer, scores)
    result = {
        "run_id": run.run_id,
        "folder": str(run.folder),
        "steps": state.step,
        "epochs": round(trainer.epoch(state), 2),
        "seconds": round(state.seconds, 1),
        "best_step": state.best_step,
        "best_development": state.best,
        "select": select,
        "average": made,
        "checkpoint": str(chosen),
        "calibration": calibrations.get(chosen.name),
        "quarantined": len(trainer.quarantine.entries),
    }
    if run.primary:
        with writing("finished.json"):
            write_json(run.folder / "finished.json", result)
        log.info("finished after %d steps in %.0f s", state.step, state.seconds)
    return result


def calibrate(trainer: Trainer, scores: dict[str, np.ndarray | None]) -> dict[str, dict[str, Any]]:
    """Write a calibration into the card of each checkpoint, learned from its development scores."""
    evaluator, run = trainer.evaluator, trainer.run
    assert isinstance(evaluator, SpeakerSelection | SpoofSelection)
    found = {}
    for name, values in scores.items():
        if values is None:
            continue
        try:
            calibration = fit_calibration(values, evaluator.data)
        except ResultError as error:  # the checkpoint is as good as it was
            log.warning("'%s' is not calibrated: %s", name, error)
            continue
        log.info(
            "'%s' is calibrated on %s: %.4g times the score %+.4g; Cllr %.4f, before %.4f",
            *(name, calibration.list, calibration.scale, calibration.offset),
            *(calibration.cllr_after, calibration.cllr_before),
        )
        found[name] = calibration.to_dict()
        if run.primary:
            run.checkpoints.annotate(name, {"calibration": found[name]})
    distributed.barrier()
    return found


def average_at_end(trainer: Trainer, state: State) -> Evaluation | None:
    """Average the checkpoints, refresh the batch norms, evaluate, save as ``average``.

    None where the recipe wants none, or where there are fewer than two checkpoints (said in the
    log).
    """
    average, network, run = trainer.average, trainer.task.embedder, trainer.run
    if not isinstance(average, CheckpointMean) or trainer.evaluator is None:
        return None
    if len(average.steps) < 2:
        log.warning("%d checkpoints: there is nothing to average", len(average.steps))
        return None
    update = float_only(get_swa_multi_avg_fn())  # type: ignore[no-untyped-call]
    mean = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    for step in average.steps:
        network.load_state_dict(read_weights(run.checkpoints.path(step)), strict=True)
        mean.update_parameters(network)
    network.load_state_dict(mean.module.state_dict())
    count = refresh_norms(trainer, state.step - state.phase_start, average.refresh_batches)
    shown = ", ".join(map(str, average.steps))
    log.info("averaged the checkpoints of steps %s; %d batch norms refreshed", shown, count)
    result = trainer.evaluator(trainer.task)
    values = {f"average/{name.removeprefix('dev/')}": x for name, x in result.values.items()}
    run.log(state.step, values)
    if run.primary:
        about = {"step": state.step, "development": result.card}
        about |= {"averaged_steps": list(average.steps)}
        run.checkpoints.save_average(network, trainer.card | about)
    distributed.barrier()
    return result


@torch.no_grad()
def refresh_norms(trainer: Trainer, done: int, batches: int) -> int:
    """Gather the statistics of all batch norms that learn from the batches after step ``done``.

    Frozen ones stay as they are.  Returns how many were refreshed; without any, nothing is read.
    """
    task, phase = trainer.task.train(), trainer.phase
    norms = [m for m in task.embedder.modules() if isinstance(m, _BatchNorm) and m.training]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    seen = 0
    for batch in trainer.loader.batches(done, done + batches):
        trainer.meet_broken(batch)
        torch.manual_seed(stream_key(phase.seed, "refresh", seen, distributed.rank())[0])
        for part in batch.to(trainer.precision.device).split(trainer.pieces.count):
            seen += 1
            for norm in norms:
                norm.momentum = 1 / seen  # the plain mean, as with momentum=None
            task(part, trainer.precision)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return len(norms)
