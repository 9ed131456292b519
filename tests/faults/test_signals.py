"""Signals: the step is finished and saved, and the words to go on with are said."""

from __future__ import annotations

import signal

from helpers.faults import Findings, Lab, fault, same, steps

OFF = [("unguarded", "no_signals")]


def stopped(lab: Lab, guarded: bool, call: tuple[object, ...], workers: int = 0) -> Findings:
    """A signal in step 3 of 6; no checkpoint is due there."""
    folder, changes = lab.new(), {"checkpoint__every_steps": 6, "data__workers": workers}
    ending = lab.train(folder, before=[call, *([] if guarded else OFF)], changes=changes)
    words = (f"stopped by {call[-1]} after step 3, which is saved", "--resume")
    kept = steps(folder / "run")
    return Findings(
        detected=ending.calm,
        explained=ending.says(*words),
        kept=kept == [3],
        resumed=lab.resume(folder, changes=changes).code == 0 and same(folder / "run", lab.whole()),
        said=ending.lines(*words),
    )


@fault(
    "SIGTERM",
    injected="the process sends itself SIGTERM in step 3, no checkpoint being due",
    does="finishes the step, saves it, ends with exit code 1",
    kept="every step; `--resume` continues bit for bit",
    without="the handlers of signals",
    breaks=("detected", "explained", "kept"),
)
def test_sigterm(lab: Lab, guarded: bool) -> Findings:
    return stopped(lab, guarded, ("happens", "signalled", 3, "SIGTERM"))


@fault(
    "SIGINT of the whole process group",
    injected="SIGINT to the group in step 3, as from a terminal: training and two data workers",
    does="the same; data workers leave signals to the training",
    kept="every step; `--resume` continues bit for bit",
    without="the handlers of signals",
    breaks=("detected", "explained", "kept"),
)
def test_sigint(lab: Lab, guarded: bool) -> Findings:
    return stopped(lab, guarded, ("happens", "group_signalled", 3, "SIGINT"), workers=2)


@fault(
    "a second signal",
    injected="SIGTERM twice in step 3; a checkpoint of each step",
    does="ends at once, by the signal",
    kept="all checkpoints; `--resume` makes step 3 again, bit for bit",
    without="the second signal's meaning: it is noted like the first",
    breaks=("detected",),
)
def test_second_signal(lab: Lab, guarded: bool) -> Findings:
    folder = lab.new()
    off = [] if guarded else [("unguarded", "one_signal_is_enough")]
    ending = lab.train(folder, before=[("happens", "signalled_twice", 3, "SIGTERM"), *off])
    kept = steps(folder / "run")
    return Findings(
        detected=ending.code == -signal.SIGTERM,
        explained=ending.says("SIGTERM: finishing the step, then saving (once more: at once)"),
        kept=kept == [1, 2],
        resumed=lab.resume(folder).code == 0 and same(folder / "run", lab.whole()),
        said=ending.lines("SIGTERM"),
    )
