"""A disk that is full or may not be written: the run stops, what was saved stays."""

from __future__ import annotations

import os

from helpers.faults import Call, Findings, Lab, fault, same, steps

PLAIN: list[Call] = [("unguarded", "plain_writes")]
# the file that no longer fits, in steps 2 to 6, and how many bytes of it still do
PLACES = [
    ("model.safetensors", 20_000),
    ("card.json", 0),
    ("state.pt", 100_001),
    ("metrics.jsonl", 100),
    ("", 50_000),
]


def stops(lab: Lab, call: Call, off: list[Call], *told: str) -> Findings:
    """From step 4 on nothing (or not enough) can be written."""
    folder = lab.new()
    ending = lab.train(folder, before=[call, *off])
    run = folder / "run"
    for path in (run, run / "checkpoints"):
        os.chmod(path, 0o755)
    kept = bool(steps(run)) and steps(run)[-1] == 3 and same(run, lab.whole(), 3)
    litter = list(run.glob("checkpoints/.*"))
    return Findings(
        detected=ending.calm,
        explained=ending.says(*told, "fix: free some space", "--resume"),
        kept=kept and not litter,
        resumed=kept and lab.resume(folder).code == 0 and same(run, lab.whole()),
        said=ending.lines("cannot be written", "fix: free some space"),
    )


@fault(
    "the disk is full at byte n",
    injected="file objects that raise ENOSPC: in each file of a checkpoint (weights, card, state), "
    "in the metrics, and after 50,000 bytes of anything; one run meets them all",
    does="stops with exit code 1, removes what was half written",
    kept="all checkpoints before; each `--resume` continues bit for bit",
    without="the temporary name: one checkpoint, overwritten in place",
    breaks=("kept", "resumed"),
)
def test_full_disk(lab: Lab, guarded: bool) -> Findings:
    """One run meets all of them, each time a step later."""
    folder, run = lab.new(), lab.folder / f"{lab.count:03d}" / "run"
    off = [] if guarded else PLAIN
    detected = explained = kept = True
    said = ""
    for step, place in enumerate(PLACES if guarded else PLACES[2:3], start=2):
        words = ("--resume",) if step > 2 else ()
        ending = lab.train(folder, *words, before=[("happens", "disk_full", step, *place), *off])
        detected &= ending.calm
        explained &= ending.says(
            "cannot be written", "No space left", "free some space", "--resume"
        )
        kept &= steps(run)[-1:] == [step - 1] and same(run, lab.whole(), step - 1)
        kept &= not list(run.glob("checkpoints/.*"))
        said = said or ending.lines("cannot be written", "fix: free some space")
    return Findings(
        detected=detected,
        explained=explained,
        kept=kept,
        resumed=kept and lab.resume(folder).code == 0 and same(run, lab.whole()),
        said=said,
    )


@fault(
    "the log cannot be written",
    injected="a file object that raises ENOSPC at byte 10 of what `train.log` gets from step 4 on",
    does="stops with exit code 1",
    kept="all checkpoints; `--resume` continues bit for bit",
    without="the handler that takes a lost line seriously",
    breaks=("detected", "explained"),
)
def test_full_log(lab: Lab, guarded: bool) -> Findings:
    folder = lab.new()
    off = [] if guarded else [("unguarded", "lost_lines_are_no_matter")]
    full = ("happens", "log_full", 4)
    ending = lab.train(folder, before=[full, *off])
    told = ("train.log cannot be written: No space left", "--resume")
    return Findings(
        detected=ending.calm,
        explained=ending.says(*told),
        kept=steps(folder / "run")[:4] == [1, 2, 3, 4],
        resumed=lab.resume(folder).code == 0 and same(folder / "run", lab.whole()),
        said=ending.lines("cannot be written", "fix: free some space"),
    )


@fault(
    "the system refuses a large file",
    injected="`RLIMIT_FSIZE` of 100,000 bytes from step 4 on; the state of a checkpoint is larger",
    does="stops with exit code 1, removes what was half written",
    kept="all checkpoints up to step 3; `--resume` continues bit for bit",
    without="the temporary name: one checkpoint, overwritten in place",
    breaks=("kept", "resumed"),
)
def test_file_size_limit(lab: Lab, guarded: bool) -> Findings:
    call = ("happens", "largest_file", 4, 100_000)
    return stops(lab, call, [] if guarded else PLAIN, "step 4 cannot be written", "File too large")


@fault(
    "the run folder becomes read-only",
    injected="mode 0555 on the folder of checkpoints from step 4 on (and no right to override it)",
    does="stops with exit code 1",
    kept="all checkpoints up to step 3; `--resume` continues bit for bit",
    without="the stop at a failed write: it is an error of the system as any other",
    breaks=("explained",),
)
def test_read_only(lab: Lab, guarded: bool) -> Findings:
    folder_of_next = lab.folder / f"{lab.count + 1:03d}" / "run" / "checkpoints"
    call = ("happens", "read_only", 4, str(folder_of_next))
    off: list[Call] = [] if guarded else [("unguarded", "no_stop_at_writes")]
    return stops(lab, call, off, "step 4 cannot be written", "Permission denied")


@fault(
    "the run folder cannot be made",
    injected="`--out` below a folder of mode 0555",
    does="refuses before the first step, naming the folder",
    kept="there is nothing to lose; with the permission the run is an ordinary one",
    without="the command line's words for errors of the system",
    breaks=("detected",),
)
def test_read_only_parent(lab: Lab, guarded: bool) -> Findings:
    folder = lab.new()
    off = [] if guarded else [("unguarded", "no_words_for_system_errors")]
    parent = folder / "out"
    parent.mkdir()
    words = ("--out", str(parent / "run"))
    ending = lab.train(folder, *words, before=[("happens", "read_only", 0, str(parent)), *off])
    os.chmod(parent, 0o755)
    told = f"{parent / 'run'}"
    return Findings(
        detected=ending.code in (1, 2) and "Traceback" not in ending.said,
        explained=ending.says(told, "Permission denied"),
        kept=not (parent / "run").exists(),
        resumed=lab.train(folder, *words).code == 0 and same(parent / "run", lab.whole()),
        said=ending.lines("Permission denied"),
    )
