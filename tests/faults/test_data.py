"""Audio files that break or vanish in the middle of a run: named, never replaced by silence."""

from __future__ import annotations

import os
from pathlib import Path

from helpers.faults import Call, Findings, Lab, fault, same, steps, weights

OFF: list[Call] = [("unguarded", "zeros_for_broken_clips")]
VICTIM = "s01_1_bonafide"


def one_clip(lab: Lab, guarded: bool, what: str, reason: str) -> Findings:
    """It is read again in the second epoch (from step 5), which the run ends with."""
    folder = lab.new(corpus=True)
    changes, root = {"train__steps": 8}, folder / "data"
    before: list[Call] = [("happens", what, 3, str(root / f"{VICTIM}.wav"))]
    ending = lab.train(folder, before=before + ([] if guarded else OFF), root=root, changes=changes)
    listed = folder / "run" / "quarantine.jsonl"
    told = f"{VICTIM} cannot be read and is left out"
    made = weights(folder / "run")
    kept = ending.code == 0 and steps(folder / "run") == list(range(1, 9))
    back = ("--resume", str(folder / "run" / "checkpoints" / "step-00000004"))
    if what == "path_vanishes":  # a resume without the file is refused
        refused = lab.train(folder, *back, root=root, changes=changes)
        kept &= refused.code == 2 and refused.says(f"1 files are missing: {VICTIM}.wav")
        (root / f"{VICTIM}.wav").write_bytes(b"")
    again = lab.train(folder, *back, before=[] if guarded else OFF, root=root, changes=changes)
    return Findings(
        detected=listed.exists() and VICTIM in listed.read_text(),
        explained=ending.says(told, reason, "1 broken files were left out"),
        kept=kept,
        resumed=again.code == 0 and weights(folder / "run") == made,
        said=ending.lines(told, "broken files were left out"),
    )


@fault(
    "an audio file is damaged during the run",
    injected="a clip is overwritten with text before step 3; it is needed again in epoch 2",
    does="names it, lists it in `quarantine.jsonl`, takes another clip of its class; past "
    "`data.broken_budget` it stops",
    kept="every step; going back to step 4 and on gives the same bytes",
    without="the quarantine: silence instead of the clip",
    breaks=("detected", "explained"),
)
def test_damaged_file(lab: Lab, guarded: bool) -> Findings:
    return one_clip(lab, guarded, "file_damaged", "left out")


@fault(
    "an audio file vanishes during the run",
    injected="a clip is moved away before step 3; it is needed again in epoch 2",
    does="the same; a resume without the file is refused, naming it",
    kept="every step; with an (empty) file in its place a resume from step 4 gives the same bytes",
    without="the quarantine: silence instead of the clip",
    breaks=("detected", "explained"),
)
def test_vanished_file(lab: Lab, guarded: bool) -> Findings:
    return one_clip(lab, guarded, "path_vanishes", "left out")


@fault(
    "the data folder vanishes",
    injected="`data.root` is moved away before step 3 of 6",
    does="stops with exit code 1; a resume without the data is refused",
    kept="all checkpoints; once the data are back, `--resume` continues bit for bit",
    without="the quarantine: silence instead of the clips",
    breaks=("detected", "explained"),
)
def test_vanished_folder(lab: Lab, guarded: bool) -> Findings:
    folder = lab.new(corpus=True)
    root = folder / "data"
    before: list[Call] = [("happens", "path_vanishes", 3, str(root)), *([] if guarded else OFF)]
    ending = lab.train(folder, before=before, root=root)
    told = ("could not be read", "no such file", "check data.root")
    kept = steps(folder / "run")[:3] == [1, 2, 3] and same_prefix(lab, folder / "run")
    refused = lab.resume(folder, root=root)
    os.rename(f"{root}.gone", root)
    again = lab.resume(folder, root=root)
    return Findings(
        detected=ending.code in (1, 2) and "Traceback" not in ending.said,
        explained=ending.says(*told) and refused.says("manifest.csv"),
        kept=kept,
        resumed=refused.code == 2 and again.code == 0 and same(folder / "run", lab.whole()),
        said=ending.lines(*told) + "\n" + refused.lines("manifest.csv"),
    )


def same_prefix(lab: Lab, run: Path) -> bool:
    """Whether the third checkpoint is that of the undisturbed run."""
    name = "checkpoints/step-00000003/model.safetensors"
    return (run / name).read_bytes() == (lab.whole() / name).read_bytes()
