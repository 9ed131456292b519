"""Back to the best weights, when a guard asks for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

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
    best = trainer.run.checkpoints.folder / "best"
    distributed.barrier()  # the first process may still be writing
    trainer.task.embedder.load_state_dict(read_weights(best), strict=True)
    trainer.average.roll_back(trainer.task.embedder, best, state.step)
    saved = load_state(best, trainer.precision.device)["head"]
    fitting = trainer.task.head.state_dict().keys() == saved.keys()
    if fitting:
        trainer.task.head.load_state_dict(saved)
    trainer.optim.forget()
    state.worse = 0
    done = f"back to the weights of step {state.best_step}"
    if not fitting:
        done += " (the loss, which is another one by now, stays)"
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
