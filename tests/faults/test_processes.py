"""Processes that are killed: the run itself at twenty points, a data worker, one of two ranks."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from glottis.config import to_yaml
from helpers.faults import HELPERS, Call, Ending, Findings, Lab, fault, python_path, same, steps
from helpers.tones import recipe

LONG = {"train__steps": 40, "checkpoint__keep": 2, "log__every_steps": 5}
KILLS = 20
FOUR = {"train__steps": 4}


@fault(
    "SIGKILL at 20 random points",
    injected="one run, killed 20 times (seeded): by the clock, before a call that changes the "
    "checkpoints, after n bytes written there; with 0, 1 and 2 data workers",
    does="`--resume` removes what was half written and goes on",
    kept="all but the steps since the last checkpoint; in the end the bytes of an undisturbed run",
    without="the temporary name: one checkpoint, overwritten in place",
    breaks=("kept", "resumed"),
)
def test_sigkill(lab: Lab, guarded: bool) -> Findings:
    whole = lab.whole(**LONG)
    folder, run = lab.new(), lab.folder / f"{lab.count:03d}" / "run"
    off: list[Call] = [] if guarded else [("unguarded", "plain_writes")]
    points, killed, newest = random.Random(4), 0, 0
    for number in range(KILLS):
        calls: list[Call] = [
            ("happens", "killed_at_byte", points.randrange(400_000)),
            ("happens", "killed_at_call", points.randrange(1, 30)),
        ]
        kind = points.randrange(3)
        ending = attempt(lab, folder, number % 3, off + calls[kind : kind + 1], newest, points)
        killed += ending.code == -signal.SIGKILL
        left = steps(run)
        if ending.code != -signal.SIGKILL or left[-1:] < [newest][: len(left)]:
            break  # it could not go on (or was finished), or has lost a step
        newest = left[-1] if left else 0
    last = lab.resume(folder, changes=LONG)
    exact = last.code == 0 and same(run, whole)
    return Findings(
        detected=True,  # nobody detects it: the process is gone
        explained=not guarded or last.says("continuing after step"),
        kept=killed == KILLS,
        resumed=exact and not list(run.glob("checkpoints/.*")),
        said=re.sub(r"\d+", "N", last.lines("continuing after step")),
    )


def attempt(
    lab: Lab, folder: Path, workers: int, before: list[Call], newest: int, points: random.Random
) -> Ending:
    """One life of the run.  Without a call that kills, the clock does: after up to two steps."""
    words = ("--resume", f"data.workers={workers}")
    started = lab.start(folder, *words, before=before, changes=LONG)
    wanted, delay = newest + points.randrange(3), points.uniform(0.0, 0.2)
    if not any(call[1].startswith("killed") for call in before):
        path = folder / "run" / "checkpoints" / f"step-{wanted:08d}"
        until = time.monotonic() + 60
        while wanted > newest and not path.exists() and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(delay)
        os.killpg(started.pid, signal.SIGKILL)
    return started.wait()


@fault(
    "a data worker is killed",
    injected="SIGKILL to the data worker before step 3",
    does="names it and stops with exit code 1",
    kept="all checkpoints; `--resume` continues bit for bit",
    without="the words for it: torch's error as it is",
    breaks=("detected", "explained"),
)
def test_worker(lab: Lab, guarded: bool) -> Findings:
    folder, changes = lab.new(), {"data__workers": 1, "data__prefetch": 1}
    off: list[Call] = [] if guarded else [("unguarded", "no_names_for_workers")]
    ending = lab.train(folder, before=[("happens", "worker_killed", 3), *off], changes=changes)
    told = ("a data worker died", "fix: lower data.workers")
    made = steps(folder / "run")
    return Findings(
        detected=ending.calm,
        explained=ending.says(*told),
        kept=len(made) >= 2 and same(folder / "run", lab.whole(), made[-1]),
        resumed=lab.resume(folder).code == 0 and same(folder / "run", lab.whole()),
        said=ending.lines(*told),
    )


@fault(
    "one of two processes is killed",
    injected="SIGKILL to rank 1 in step 3 of a run of two processes (gloo) under `torchrun`",
    does="the other one says so and ends with exit code 1; `torchrun` names the rank and ends",
    kept="all checkpoints; `--resume` continues bit for bit",
    without="the words for it: torch's error as it is",
    breaks=("explained",),
)
def test_rank(lab: Lab, guarded: bool) -> Findings:
    folder = lab.new()
    off = [] if guarded else ["unguarded.no_names_for_peers"]
    ending = two_processes(lab, folder, ["happens.rank_killed:3:1", *off])
    told = ("the connection to another process of the run is lost", "--resume")
    made = steps(folder / "run")
    if not guarded:  # it went on being right; only nobody says what happened
        return Findings(ending.code == 1, ending.says(*told), made == [1, 2], True, ending.said)
    whole = lab.new()
    again = lab.train(folder, "--resume", ranks=2, changes=FOUR)
    undisturbed = lab.train(whole, ranks=2, changes=FOUR)
    return Findings(
        detected=ending.code == 1 and ending.says("Signal 9"),
        explained=ending.says(*told) and not ending.says("in train_recipe"),  # no traceback of ours
        kept=made == [1, 2],
        resumed=again.code == undisturbed.code == 0 and same(folder / "run", whole / "run"),
        said=ending.lines("another process of the run", "fix: look"),
    )


def two_processes(lab: Lab, folder: Path, before: list[str], *words: str) -> Ending:
    """``torchrun --nproc-per-node 2``; the calls of ``before`` are made in each."""
    path = folder / "recipe.yaml"
    path.write_text(to_yaml(recipe(lab.tree(**FOUR))))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *(str(HELPERS / "one_rank.py"), ",".join(before), "train", str(path)),
        *("--out", str(folder / "run"), *words),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": python_path()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    return Ending(done.returncode, done.stderr)
