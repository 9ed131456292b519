"""Faults that happen to a run from outside: called in its process, before the command line.

Nothing here is known to Glottis: steps are counted by standing before the function that makes one.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import io
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def before_step(number: int, action: Callable[[Any, Any, Any], None]) -> None:
    """Call ``action(task, batch, optim)`` before step ``number`` of the run (from 1)."""
    from glottis.train import engine

    real = engine.step

    def step(task: Any, batch: Any, optim: Any, *words: Any, **options: Any) -> Any:
        if batch.step + 1 == number:
            action(task, batch, optim)
        return real(task, batch, optim, *words, **options)

    engine.step = step


# ------------------------------------------------------------------------------ signals


def signalled(number: int, name: str) -> None:
    """The process gets this signal in the middle of the step."""
    before_step(number, lambda *_: os.kill(os.getpid(), signal.Signals[name]))


def signalled_twice(number: int, name: str) -> None:
    """One signal, and another one before the step has ended."""
    signalled(number, name)
    signalled(number, name)


def group_signalled(number: int, name: str) -> None:
    """The whole process group gets it, data workers included, as from a terminal."""
    before_step(number, lambda *_: os.killpg(os.getpgid(0), signal.Signals[name]))


def worker_killed(number: int) -> None:
    """The data workers are killed; the step waits until the batches that they had made are gone."""

    def kill(*_: Any) -> None:
        for child in children(os.getpid()):
            os.kill(child, signal.SIGKILL)

    before_step(number, kill)


def children(parent: int) -> list[int]:
    """Process ids of the children of a process."""
    return [int(c) for c in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


# ------------------------------------------------------------------------------ memory


def memory_runs_short(share: float, kind: str) -> None:
    """A counted allocator: activations of one forward pass may take ``share`` of a whole batch's.

    kind: whose error is raised, that of a device or of the host.
    """
    import copy

    import torch

    errors = {
        "device": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        "host": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    }
    taken = [0, 0]  # now, and the limit

    def count(module: Any, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            taken[0] += output.nbytes
        if module.training and taken[0] > taken[1]:
            raise errors[kind]()

    def begin(task: Any, batch: Any, _: Any) -> None:
        network = task.embedder.network
        probe = copy.deepcopy(network)
        hooks = [module.register_forward_hook(count) for module in probe.modules()]
        taken[:] = [0, 10**18]
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            probe(batch.wave.float() / 32768)
        for hook in hooks:
            hook.remove()
        taken[:] = [0, int(taken[0] * share)]
        network.register_forward_pre_hook(lambda *_: taken.__setitem__(0, 0))
        for module in network.modules():
            module.register_forward_hook(count)

    before_step(1, begin)


# ------------------------------------------------------------------------------ files


def file_damaged(number: int, path: str) -> None:
    """An audio file becomes something else."""
    before_step(number, lambda *_: Path(path).write_bytes(b"this is not audio" * 9))


def path_vanishes(number: int, path: str) -> None:
    """A file or a folder is no longer there (it is moved aside)."""
    before_step(number, lambda *_: os.rename(path, f"{path}.gone"))


# ------------------------------------------------------------------------------ the disk


def disk_full(number: int, name: str, room: int) -> None:
    """From a step on, files of the run whose path holds ``name`` have ``room`` more bytes."""
    before_step(number, lambda *_: _limit(name, room, _no_space))


def log_full(number: int) -> None:
    """From a step on ``train.log`` has 10 more bytes: it is a file that is open all the time."""
    import logging

    class Disk(io.StringIO):
        def write(self, text: str) -> int:
            if self.tell() + len(text) > 10:
                _no_space()
            return super().write(text)

    def exchange(*_: Any) -> None:
        for handler in logging.getLogger("glottis").handlers:
            if isinstance(handler, logging.FileHandler):
                handler.stream = Disk()  # type: ignore[assignment]

    before_step(number, exchange)


def killed_at_byte(room: int) -> None:
    """SIGKILL in the middle of a write, after so many bytes below the checkpoints."""
    _limit("checkpoints", room, _die)


def killed_at_call(number: int) -> None:
    """SIGKILL before call ``number`` that opens, renames, links or removes in the checkpoints."""
    seen = 0

    def watch(event: str, words: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in CALLS and "/checkpoints" in str(words[0]):
            seen += 1
            if seen == number:
                _die()

    sys.addaudithook(watch)


CALLS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink"}


def largest_file(number: int, size: int) -> None:
    """From a step on the system refuses files above ``size`` bytes (RLIMIT_FSIZE)."""

    def limit(*_: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    before_step(number, limit)


def read_only(number: int, path: str) -> None:
    """From a step on (0: at once) a folder may not be written, for the superuser either."""

    def lock(*_: Any) -> None:
        os.chmod(path, 0o555)
        _no_override()

    if number:
        before_step(number, lock)
    else:
        lock()


def _no_override() -> None:
    """Give up the capabilities of Linux by which a superuser may write where nobody may."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for index in range(3):  # effective, permitted, inheritable: CAP_DAC_OVERRIDE, _READ_SEARCH
        sets[index] &= ~0b110
    assert libc.capset(header, sets) == 0


def _no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _limit(name: str, room: int, end: Callable[[], None]) -> None:
    """Python's ``open`` gives, for writing in the run folder, files that ``end`` after a time."""
    folder = sys.argv[sys.argv.index("--out") + 1]
    real, left = io.open, room

    class Disk(io.FileIO):
        def write(self, data: Any) -> int:
            nonlocal left
            size = memoryview(data).nbytes
            if size > left:
                done = super().write(bytes(data)[:left]) if left else 0
                left -= done
                end()
            left -= size
            return super().write(data)

    def opened(file: Any, mode: str = "r", buffering: int = -1, *words: Any, **named: Any) -> Any:
        path = str(file)
        if not (path.startswith(folder) and name in path and set(mode) & set("wax+")):
            return real(file, mode, buffering, *words, **named)
        raw = Disk(file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding="utf-8")

    builtins.open = io.open = opened  # type: ignore[assignment]


# ------------------------------------------------------------------------------ processes


def rank_killed(number: int, rank: int) -> None:
    """One of several processes is killed in the middle of a step."""
    if os.environ["RANK"] == str(rank):
        before_step(number, lambda *_: _die())
