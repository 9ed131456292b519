"""Files decoded in other processes, handed back in order.  No pool of the standard library does it:

they leave orphans behind when the parent is killed, and hang when a native decoder crashes.  Here a
worker ends when its pipe does, and a file on which workers die is reported like any broken file.
"""

from __future__ import annotations

import io
import multiprocessing
import signal
import traceback
import zlib
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import soundfile

from glottis.audio.channels import Channel
from glottis.audio.decoding import load
from glottis.audio.packestimate import PackItem
from glottis.audio.pcm import to_int16
from glottis.audio.storefiles import Codec
from glottis.errors import AudioError, ToolkitError

_QUEUED = 4  # files handed to a worker ahead of time, so that it never waits for the parent
_BUFFERED_BYTES = 256 << 20  # results that wait for their turn
_MISSING_S = 0.05  # lists of pieces round the length of their recordings
_ATTEMPTS = 2  # a worker may also die of something that is not the file's fault


@dataclass(frozen=True)
class Settings:
    """How every file is stored."""

    sample_rate: int
    codec: Codec
    channel: Channel


@dataclass(frozen=True)
class Outcome:
    """One item: the bytes to store, or the reason why there are none."""

    position: int
    data: bytes = b""
    num_samples: int = 0
    crc32: int = 0
    warnings: tuple[str, ...] = ()
    reason: str | None = None


def encode_file(position: int, item: PackItem, settings: Settings) -> Outcome:
    """Decode, resample, mix, and turn into the bytes of the store."""
    rate, wanted_s = settings.sample_rate, item.duration_s
    try:
        audio = load(
            item.path, rate, start_s=item.start_s, duration_s=wanted_s, channel=settings.channel
        )
    except AudioError as error:
        return Outcome(position, reason=error.seen)
    except MemoryError:
        return Outcome(position, reason=f"{item.path}: not enough memory to decode it")
    samples = to_int16(audio.samples)
    warnings = audio.warnings
    if wanted_s is not None and audio.duration_s < wanted_s - _MISSING_S:
        text = f"the piece should last {wanted_s:.2f} s, the file ends after {audio.duration_s:.2f}"
        warnings = (*warnings, f"truncated: {text}")
    if settings.codec == "flac":
        blob = io.BytesIO()
        soundfile.write(blob, samples, rate, format="FLAC", subtype="PCM_16")
        data = blob.getvalue()
    else:
        data = samples.astype("<i2", copy=False).tobytes()
    return Outcome(position, data, len(samples), zlib.crc32(data), warnings)


def encode_files(
    order: Sequence[int], items: Sequence[PackItem], settings: Settings, workers: int
) -> Generator[Outcome, None, None]:
    """The outcome of ``items[position]`` for each position in the given order.

    workers: 0 decodes in this process.  Closing the iterator ends the workers.
    """
    if workers == 0:
        for position in order:
            yield encode_file(position, items[position], settings)
        return
    crew = _Crew(order, items, settings, min(workers, len(order)))
    try:
        yield from crew.run()
    finally:
        crew.stop()


def _serve(pipe: Connection, settings: Settings) -> None:
    """The life of a worker: until the parent closes the pipe, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    try:
        pipe.send("ready")
        while True:
            position, item = pipe.recv()
            try:
                outcome = encode_file(position, item, settings)
            except Exception:  # a bug: the parent must see it, with its origin
                pipe.send(traceback.format_exc())
                return
            found = (outcome.num_samples, outcome.crc32, outcome.warnings, outcome.reason)
            pipe.send((position, *found))
            pipe.send_bytes(outcome.data)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


class _Worker:
    """A process, our end of its pipe, and the positions it has not answered yet, in order."""

    def __init__(self, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")  # fork copies locks of other threads
        self.pipe, theirs = context.Pipe()
        self.waiting: deque[int] = deque()
        self.ready = False
        self.process = context.Process(target=_serve, args=(theirs, settings), daemon=True)
        self.process.start()
        theirs.close()  # or the pipe would never end

    def stop(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


class _Crew:
    """Keeps workers busy, replaces dead ones, and sorts their answers."""

    def __init__(
        self, order: Sequence[int], items: Sequence[PackItem], settings: Settings, workers: int
    ) -> None:
        self._order, self._items, self._settings = order, items, settings
        self._todo = deque(order)
        self._done: dict[int, Outcome] = {}
        self._done_bytes = 0
        self._deaths: Counter[int] = Counter()
        self._workers: list[_Worker] = []
        for _ in range(workers):
            self._workers.append(_Worker(settings))

    def run(self) -> Iterator[Outcome]:
        for position in self._order:
            while position not in self._done:
                self._hand_out(position)
                pipes = {worker.pipe: worker for worker in self._workers}
                for pipe in wait(list(pipes)):
                    self._receive(pipes[pipe])  # type: ignore[index]
            outcome = self._done.pop(position)
            self._done_bytes -= len(outcome.data)
            yield outcome

    def _hand_out(self, next_position: int) -> None:
        for worker in self._workers:
            while worker.ready and len(worker.waiting) < _QUEUED and self._todo:
                # The one that everybody waits for goes out even when the buffer is full.
                if self._done_bytes > _BUFFERED_BYTES and self._todo[0] != next_position:
                    return
                position = self._todo.popleft()
                worker.waiting.append(position)
                try:
                    worker.pipe.send((position, self._items[position]))
                except OSError:
                    return  # it is dead; reading from it will say so

    def _receive(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv()
            if message == "ready":
                worker.ready = True
                return
            if isinstance(message, str):
                raise RuntimeError(f"a packing worker failed\n{message}")
            position, num_samples, crc32, warnings, reason = message
            data = worker.pipe.recv_bytes()
        except (EOFError, ConnectionResetError):
            self._replace(worker)
            return
        worker.waiting.popleft()
        self._done[position] = Outcome(position, data, num_samples, crc32, warnings, reason)
        self._done_bytes += len(data)

    def _replace(self, worker: _Worker) -> None:
        """A worker died: the item it was at is tried once more, then given up."""
        worker.process.join()
        code = worker.process.exitcode or 0
        if not worker.ready:
            raise ToolkitError(
                f"a packing worker could not start (exit code {code})",
                why="a new process imports the script that started it, and runs it",
                fix="put the call under  if __name__ == '__main__':  or use workers=0",
            )
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if worker.waiting:
            suspect = worker.waiting[0]
            self._deaths[suspect] += 1
            if self._deaths[suspect] >= _ATTEMPTS:
                worker.waiting.popleft()
                reason = f"{self._items[suspect].path}: the decoder crashed on it ({how}), twice"
                self._done[suspect] = Outcome(suspect, reason=reason)
        self._todo.extendleft(reversed(worker.waiting))
        worker.stop()
        self._workers[self._workers.index(worker)] = _Worker(self._settings)

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()
