"""Back to the best weights, when a guard asks for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glottis.train import distributed
from glottis.train.checkpoint import load_state, read_weights
from glottis.train.guards import Verdict

if TYPE_CHECKING:
    from glottis.train.engine import Trainer
from glottis.train.state import State

log = logging.getLogger(__name__)

LEAST = 1e-3
"""Share of its rate below which lowering it once more is no remedy: the run ends."""


def recover(trainer: Trainer, state: State, verdict: Verdict) -> None:
    """Do what a guard asks for, and write it down as an event.

    The weights of network and loss and the buffers become those of the best checkpoint; moments
    begin anew, steps and data go on.  What did not help the first time (parts frozen again, a rate
    lowered to less than a thousandth) ends the run.
    """
    distributed.barrier()  # the first process may still be writing
    done = take_back(trainer, state, trainer.run.checkpoints.folder / "best", moments=False)
    state.worse = 0
    stops = verdict.action == "stop" or (verdict.freeze and state.refrozen)
    if verdict.lower < 1.0:
        trainer.optim.lower(verdict.lower)
        done += f"; the network goes on at {trainer.optim.lowered:g} of its rate"
        stops |= trainer.optim.lowered < LEAST
    elif verdict.freeze and not stops and trainer.refreeze is not None:
        state.refrozen = True
        trainer.refreeze(trainer)
        done += "; frozen again as in the phase before"
    if stops:
        state.stopped = verdict.why
        done += "; the run ends"
    trainer.task.train()
    log.warning("%s: %s", verdict.why, done)
    trainer.run.log(state.step, {"event": "roll back", "why": verdict.why, "done": done})


def take_back(trainer: Trainer, state: State, folder: Path, *, moments: bool) -> str:
    """Weights of network and loss, and buffers, become those of a checkpoint; returns it in words.

    moments: those of the optimiser and the place in the schedule too, if the checkpoint is of this
    phase.  Otherwise moments begin anew.
    """
    task, optim = trainer.task, trainer.optim
    saved = load_state(folder, trainer.precision.device)
    task.embedder.load_state_dict(read_weights(folder), strict=True)
    trainer.average.roll_back(task.embedder, saved, state.step)
    done = f"back to the weights of step {saved['step']}"
    if shapes(task.head.state_dict()) == shapes(saved["head"]):
        task.head.load_state_dict(saved["head"])
    else:
        done += " (the loss, which is another one by now, stays)"
    now = (state.phase, state.refrozen)
    if moments and (saved.get("phase", 0), saved.get("refrozen", False)) == now:
        lowered = optim.lowered
        optim.load_state_dict(saved)
        optim.lowered = lowered  # what guards have done stays done
    else:
        optim.forget()
        done += " (of an earlier phase: moments begin anew)" if moments else ""
    state.latest = saved["latest"]
    trainer.brief()  # what is frozen now may have learned since
    return done


def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Names and shapes."""
    return {name: value.shape for name, value in state.items()}
