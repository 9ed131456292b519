"""Memory that does not suffice: the batch is split, and the gradient is that of the whole."""

from __future__ import annotations

from helpers.faults import Findings, Lab, fault, same, steps

OFF = [("unguarded", "no_retry")]


def split(lab: Lab, guarded: bool, kind: str) -> Findings:
    """Room for three of four clips; the same as with the accumulation of the recipe."""
    folder = lab.new()
    before = [("happens", "memory_runs_short", 0.75, kind), *([] if guarded else OFF)]
    ending = lab.train(folder, before=before)
    told = "not enough memory for a batch of 4 in 1 piece(s): from now on in 2"
    whole = lab.whole(train__accumulation=2)
    kept = ending.code == 0 and same(folder / "run", whole)
    back = ("--resume", str(folder / "run" / "checkpoints" / "step-00000003"))
    return Findings(
        detected=ending.code == 0,
        explained=ending.says(told),
        kept=kept,
        resumed=kept and lab.train(folder, *back).code == 0 and same(folder / "run", whole),
        said=ending.lines("not enough memory"),
    )


@fault(
    "the device has no memory left",
    injected="hooks count the bytes of the activations and raise torch's out-of-memory error at "
    "three quarters of a batch's",
    does="makes the step again with the batch in 2 pieces, and every later one",
    kept="every step; the bytes are those of a run with `train.accumulation=2`, dropout included",
    without="the retry: the error is one as any other",
    breaks=("detected", "explained", "kept"),
)
def test_device_memory(lab: Lab, guarded: bool) -> Findings:
    return split(lab, guarded, "device")


@fault(
    "the host has no memory left",
    injected="the same, with the error of the host's allocator",
    does="the same",
    kept="the same",
    without="the retry: the error is one as any other",
    breaks=("detected", "explained", "kept"),
)
def test_host_memory(lab: Lab, guarded: bool) -> Findings:
    return split(lab, guarded, "host")


@fault(
    "not even one clip fits",
    injected="the same, with room for a fifth of a batch of four",
    does="splits down to one clip, then stops with exit code 1",
    kept="nothing was made yet; `--resume` with more memory gives the bytes of an undisturbed run",
    without="the retry: the error is one as any other",
    breaks=("detected", "explained"),
)
def test_one_clip(lab: Lab, guarded: bool) -> Findings:
    folder = lab.new()
    before = [("happens", "memory_runs_short", 0.2, "device"), *([] if guarded else OFF)]
    ending = lab.train(folder, before=before)
    told = ("not enough memory for 1 clips at once", "fix: shorten data.crop_seconds")
    return Findings(
        detected=ending.calm,
        explained=ending.says(*told),
        kept=steps(folder / "run") == [],
        resumed=lab.resume(folder).code == 0 and same(folder / "run", lab.whole()),
        said=ending.lines(*told),
    )
