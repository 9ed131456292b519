"""Broken files: written down with the reason, never replaced by zeros, and only so many of them.

A worker process that meets a broken file returns a `Broken` record with its batch; the process that
owns the run folder keeps the `Quarantine` and adds the records, so one process writes the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from glottis.errors import AudioError, ConfigError, DataError, TrainingStopped


@dataclass(frozen=True)
class Broken:
    """One file that cannot be used.  Small and picklable: it travels from worker to owner."""

    utterance: str
    path: str
    reason: str

    @classmethod
    def from_error(cls, utterance: str, path: str | os.PathLike[str], error: AudioError) -> Broken:
        """The record of an AudioError, with the first line of its text."""
        return cls(utterance, os.fspath(path), error.seen)


class Quarantine:
    """The list of broken utterances and its limit.

    path: JSON lines, one `Broken` each; entries of an earlier part of the run are read and count.
    None keeps the list in memory only.
    budget: so many utterances may be broken; one more raises TrainingStopped.
    An utterance counts once, however often and by however many workers it is met.
    """

    def __init__(self, path: Path | None, budget: int) -> None:
        if budget < 0:
            raise ConfigError(f"the budget of broken files must be 0 or more, not {budget}")
        self.path, self.budget = path, budget
        self._entries: dict[str, Broken] = {}
        self._owner = os.getpid()
        if path is not None and path.exists():
            for entry in read_records(path):
                self._entries.setdefault(entry.utterance, entry)

    def add(self, utterance: str, path: str | os.PathLike[str], reason: str) -> None:
        """Write one broken file down.  Raises TrainingStopped when the budget is exceeded."""
        self.add_records([Broken(utterance, os.fspath(path), reason)])

    def add_records(self, records: Iterable[Broken]) -> None:
        """Write records that workers returned.  All are kept before the budget is checked."""
        assert os.getpid() == self._owner, "only the process that made a Quarantine may add to it"
        new = {r.utterance: r for r in records if r.utterance not in self._entries}
        if not new:
            return
        self._entries.update(new)
        if self.path is not None:
            _append(self.path, new.values())
        self.check()

    def check(self) -> None:
        """Raise TrainingStopped if more utterances are broken than the budget allows."""
        if len(self._entries) <= self.budget:
            return
        last = next(reversed(self._entries.values()))
        place = "" if self.path is None else f"; the list is {self.path}"
        raise TrainingStopped(
            f"{len(self._entries)} files are broken, the budget is {self.budget}{place}",
            why=f"so many are rarely an accident; the last one: {last.reason}",
            fix="repair the files (or the root they are looked for in), or raise the budget",
            rule="P11",
        )

    @property
    def entries(self) -> tuple[Broken, ...]:
        """All records, in the order in which they were met."""
        return tuple(self._entries.values())

    def __contains__(self, utterance: object) -> bool:
        return utterance in self._entries

    def __len__(self) -> int:
        return len(self._entries)


def read_records(path: Path) -> Iterator[Broken]:
    """The records in a quarantine file.  A last line without its end was never finished: left out.

    Raises DataError if another line is not a record.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            yield Broken(**json.loads(line))
        except (ValueError, TypeError):
            raise DataError(
                f"{path}, line {number}: not a quarantine record",
                fix="remove the line, or the file if nothing in it matters",
            ) from None


def _append(path: Path, records: Iterable[Broken]) -> None:
    """One write for all lines, so that a reader or a kill never sees half of one in between."""
    text = "".join(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in records)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+", buffering=0) as handle:
            if handle.tell() > 0:  # a kill may have left half a line: it must not spoil ours
                handle.seek(-1, os.SEEK_END)
                if handle.read(1) != b"\n":
                    content = path.read_bytes()
                    handle.truncate(content.rfind(b"\n") + 1)
            handle.write(text.encode(errors="backslashreplace"))
    except OSError as error:
        raise DataError(
            f"{path}: the quarantine list cannot be written ({error.strerror})",
            why="a broken file that is not written down would vanish silently",
        ) from None
