"""Fault scenarios: each runs twice, as Glottis is and with one of its guards taken away.

A scenario is a function of ``(lab, guarded)`` that lets a fault happen to runs of the command line
and returns what it found.  With the guard every finding must hold; without it those that the
scenario names must not.  What a scenario declares and what the run said is `docs/reliability.md`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.config import to_yaml
from glottis.errors import ModelError
from glottis.train.checkpoint import load_state, read_weights
from helpers.tones import merged, recipe, spoof_tree, write_corpus

HELPERS = Path(__file__).resolve().parent
SEEN = HELPERS.parent / "faults" / "seen.json"
REWRITE = "GLOTTIS_WRITE_FAULTS"  # set by tools/write_reliability.py: keep what was said
FAULTS: dict[str, Fault] = {}

Call = tuple[Any, ...]
"""What happens in the process before the run: a function of the helpers and its arguments."""


@dataclass(frozen=True)
class Findings:
    """Whether the fault was noticed, explained, cost nothing, and the run could go on.

    said: the lines that a user reads.
    """

    detected: bool
    explained: bool
    kept: bool
    resumed: bool
    said: str = ""

    @property
    def missing(self) -> set[str]:
        """The findings that do not hold."""
        names = {one.name for one in fields(self)} - {"said"}
        return {name for name in names if not getattr(self, name)}


@dataclass(frozen=True)
class Fault:
    """What a scenario declares: a line of the table.

    injected: how the fault comes about.  does: what Glottis does.  kept: what is not lost.
    without: the guard that the second run lacks.  breaks: the findings that then fail.
    """

    name: str
    family: str
    injected: str
    does: str
    kept: str
    without: str
    breaks: tuple[str, ...]
    test: str


def fault(
    name: str,
    *,
    injected: str,
    does: str,
    kept: str,
    without: str,
    breaks: Sequence[str],
) -> Callable[[Callable[[Lab, bool], Findings]], Callable[..., None]]:
    """Make a test of a scenario: with the guard all findings hold, without it ``breaks`` do not."""

    def decorate(scenario: Callable[[Lab, bool], Findings]) -> Callable[..., None]:
        path = Path(scenario.__code__.co_filename)
        test = f"tests/faults/{path.name}::{scenario.__name__}"
        family = path.stem.removeprefix("test_").replace("_", " ")
        texts = (injected, does, kept, without)
        FAULTS[name] = Fault(name, family, *texts, tuple(breaks), test)

        @pytest.mark.faults
        @pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
        def run(lab: Lab, guarded: bool) -> None:
            found = scenario(lab, guarded)
            if guarded:
                assert not found.missing, f"{sorted(found.missing)} do not hold:\n{found.said}"
                remember(name, found.said)
            else:
                held = set(breaks) - found.missing
                assert not held, f"{sorted(held)} hold without the guard too:\n{found.said}"

        run.__name__ = run.__qualname__ = scenario.__name__
        run.__doc__, run.__module__ = scenario.__doc__, scenario.__module__
        return run

    return decorate


def remember(name: str, said: str) -> None:
    """What the run said is what the table says it said."""
    known: dict[str, str] = json.loads(SEEN.read_text(encoding="utf-8")) if SEEN.exists() else {}
    if os.environ.get(REWRITE):
        text = json.dumps(known | {name: said}, indent=1, ensure_ascii=False, sort_keys=True)
        SEEN.write_text(text + "\n", encoding="utf-8")
        return
    assert known.get(name) == said, "run tools/write_reliability.py"


# ------------------------------------------------------------------------------ runs


@dataclass(frozen=True)
class Ending:
    """How a process ended.  code: its exit code, or minus the signal.  said: both streams."""

    code: int
    said: str

    @property
    def calm(self) -> bool:
        """It stopped by itself, with a message and without a traceback."""
        return self.code == 1 and "Traceback" not in self.said

    def lines(self, *wanted: str) -> str:
        """The first line that holds each of these words, without paths and process ids."""
        found = []
        for words in wanted:
            holding = [line for line in self.said.splitlines() if words in line]
            found.append(holding[0] if holding else f"(nothing says: {words})")
        return tidy("\n".join(found))

    def says(self, *wanted: str) -> bool:
        """Whether all of these words are said."""
        return all(words in self.said for words in wanted)


def tidy(text: str) -> str:
    """A message as it would be in any other folder and process."""
    text = re.sub(r"(?<![^\s(])/\S*/(?=(run|data|out)\b)", "", text)
    text = re.sub(r"\bpid\(?s?\)? ?\d+", "pid N", text)
    text = re.sub(r"\.\d+\.tmp\b", ".N.tmp", text)
    return "\n".join(line.rstrip() for line in text.splitlines())


@dataclass
class Started:
    """A run that may still go on.  pid: process and process group."""

    pid: int
    status: Callable[[], int]
    said: Path

    def wait(self, seconds: float = 120.0) -> Ending:
        """Until it has ended; one that does not is killed."""
        limit = threading.Timer(seconds, os.killpg, (self.pid, signal.SIGKILL))
        limit.start()
        try:
            status = self.status()
        finally:
            limit.cancel()
        return Ending(os.waitstatus_to_exitcode(status), self.said.read_text(errors="replace"))


@dataclass
class Lab:
    """Runs of the command line in processes of their own, below one folder.

    root: the corpus of tones.  A run is small: 6 steps of a network of 2,000 weights, a checkpoint
    after each.
    """

    folder: Path
    root: Path
    _process: subprocess.Popen[str] | None = None
    _whole: dict[str, Path] = field(default_factory=dict)
    count: int = 0

    def new(self, corpus: bool = False) -> Path:
        """A folder for one scenario, with a copy of the corpus in ``data`` if it may be damaged."""
        self.count += 1
        made = self.folder / f"{self.count:03d}"
        made.mkdir()
        if corpus:
            shutil.copytree(self.root, made / "data")
        return made

    def tree(self, root: Path | None = None, **changes: Any) -> dict[str, Any]:
        """The recipe of all scenarios, with changes."""
        small = {
            **{"train__steps": 6, "batch__size": 4, "evaluate": {}, "log__every_steps": 1},
            **{"data__cache_mb": 0, "checkpoint__every_steps": 1, "checkpoint__keep": 20},
        }
        return merged(spoof_tree(root or self.root, **small), changes)

    def start(
        self,
        folder: Path,
        *words: str,
        before: Sequence[Call] = (),
        root: Path | None = None,
        ranks: int = 1,
        changes: dict[str, Any] | None = None,
    ) -> Started:
        """Begin ``glottis train`` with the run folder ``folder/run``, in ``ranks`` processes."""
        path = folder / "recipe.yaml"
        path.write_text(to_yaml(recipe(self.tree(root, **(changes or {})))))
        said = folder / f"said-{len(list(folder.glob('said-*')))}.txt"
        out = () if "--out" in words else ("--out", str(folder / "run"))
        return self._run(["train", str(path), *out, *words], said, before, ranks)

    def _run(
        self, words: Sequence[str], said: Path, before: Sequence[Call] = (), ranks: int = 1
    ) -> Started:
        request = {
            "words": list(words),
            "said": str(said),
            "before": [[f"helpers.{c[0]}", c[1], list(c[2:])] for c in before],
            "ranks": ranks,
            "port": free_port() if ranks > 1 else 0,
        }
        process = self._nursery()
        assert process.stdin is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return Started(self._answer(), self._answer, said)

    def glottis(self, *words: str) -> Ending:
        """Another verb, to its end."""
        return self._run(words, self.new() / "said.txt").wait()

    def train(self, folder: Path, *words: str, **options: Any) -> Ending:
        """`start`, and wait for the end."""
        return self.start(folder, *words, **options).wait()

    def resume(self, folder: Path, **options: Any) -> Ending:
        """Go on with what is in the folder."""
        return self.train(folder, "--resume", **options)

    def whole(self, **changes: Any) -> Path:
        """The run folder of an uninterrupted run of this recipe, made once."""
        key = json.dumps(changes, sort_keys=True)
        if key not in self._whole:
            folder = self.new()
            ending = self.train(folder, changes=changes)
            assert ending.code == 0, ending.said
            self._whole[key] = folder / "run"
        return self._whole[key]

    def _nursery(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(HELPERS / "nursery.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path()},
            )
        return self._process

    def _answer(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the nursery has ended"
        return int(line)

    def close(self) -> None:
        """End the nursery."""
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()


def python_path() -> str:
    return os.pathsep.join([str(HELPERS.parent), os.environ.get("PYTHONPATH", "")])


def free_port() -> int:
    """A port for the processes of one run to meet at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def make_lab(folder: Path) -> Lab:
    """A lab with a corpus of its own."""
    return Lab(folder, write_corpus(folder / "tones", train=3, dev=1, clips=3, seconds=0.5))


# ------------------------------------------------------------------------------ what is left


def steps(run: Path) -> list[int]:
    """The steps of the checkpoints that are complete and can be read, oldest first."""
    found = set()
    for path in (run / "checkpoints").glob("[!.]*"):
        with contextlib.suppress(Exception):
            read_weights(path)
            found.add(int(load_state(path, torch.device("cpu"))["step"]))
    return sorted(found)


def weights(run: Path, name: str = "latest") -> bytes:
    """The network of a checkpoint, empty if there is none."""
    path = run / "checkpoints" / name / "model.safetensors"
    return path.read_bytes() if path.exists() else b""


def same(run: Path, whole: Path, step: int | None = None, *, of: int | None = None) -> bool:
    """Whether two checkpoints are the same bit for bit: weights, buffers, moments, schedule.

    of: step of the one in ``run``.  step: of the one in ``whole``.  Default: the newest.
    """
    one, other = (
        folder / "checkpoints" / ("latest" if number is None else f"step-{number:08d}")
        for folder, number in ((run, of), (whole, step))
    )
    try:
        weights = [(path / "model.safetensors").read_bytes() for path in (one, other)]
        states = [load_state(path, torch.device("cpu")) for path in (one, other)]
    except (OSError, ModelError):
        return False
    keys = ("optimiser", "head", "applied")
    return weights[0] == weights[1] and all(equal(states[0][k], states[1][k]) for k in keys)


def equal(one: Any, other: Any) -> bool:
    """Equality of nested values with tensors; NaN equals nothing."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)
