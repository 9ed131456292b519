"""The memory of a packing run: one line a file, written after its samples are in the shard.

A kill at any moment leaves shards that are at most too long and a last line that is at most half
written.  Opening the journal cuts both back, so that the run goes on as if nothing had happened.
"""

from __future__ import annotations

import json
import os
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from glottis.audio.storefiles import JOURNAL, SUFFIX, shard_name
from glottis.errors import DataError

CHECKPOINT_BYTES = 64 << 20  # at most this much work is lost
_FIELDS = ("item", "shard", "offset", "num_bytes", "num_samples", "crc32")


@dataclass
class Records:
    """What the journal says, in columns (48 bytes a clip: a million clips are nothing).

    columns: of the packed clips, in the order of packing.
    broken: position in the manifest -> reason; warnings: position -> what is odd.
    """

    columns: dict[str, array[int]] = field(
        default_factory=lambda: {name: array("q") for name in _FIELDS}
    )
    broken: dict[int, str] = field(default_factory=dict)
    warnings: dict[int, list[str]] = field(default_factory=dict)

    def add(self, record: dict[str, Any]) -> None:
        """Take one line in.  A file that was broken and is packed now is no longer broken."""
        item = record["item"]
        if "reason" in record:
            self.broken[item] = record["reason"]
            return
        for name in _FIELDS:
            self.columns[name].append(record[name])
        self.broken.pop(item, None)
        if "warnings" in record:
            self.warnings[item] = record["warnings"]

    def __len__(self) -> int:
        return len(self.columns["item"])

    def shard_sizes(self) -> list[int]:
        """Bytes of each shard."""
        sizes: dict[int, int] = {}
        columns = self.columns
        for shard, offset, count in zip(
            columns["shard"], columns["offset"], columns["num_bytes"], strict=True
        ):
            sizes[shard] = offset + count
        return [sizes[shard] for shard in sorted(sizes)]


class Journal:
    """Appends clips to shards, and records of them to ``journal.jsonl``.

    A clip's record has item, shard, offset, num_bytes, num_samples, crc32, and warnings if there
    are any; a broken file's has item and reason.
    """

    def __init__(self, folder: Path, codec: str, shard_bytes: int) -> None:
        self._folder, self._codec, self._shard_bytes = folder, codec, shard_bytes
        self._pending: list[dict[str, Any]] = []
        self._pending_bytes = 0
        self.records = self._recover()
        sizes = self.records.shard_sizes() or [0]
        self._shard, self._offset = len(sizes) - 1, sizes[-1]
        self._journal = _open_append(folder / JOURNAL)
        self._data = _open_append(self._shard_path(self._shard))

    def _shard_path(self, shard: int) -> Path:
        return self._folder / shard_name(shard, self._codec)

    def _recover(self) -> Records:
        """The records whose samples are complete; everything behind them is cut off."""
        path = self._folder / JOURNAL
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        on_disk = {p.name: p.stat().st_size for p in self._folder.glob(f"*{SUFFIX[self._codec]}")}
        records = Records()
        kept_bytes = 0
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                name = shard_name(record.get("shard", 0), self._codec)
                end = record.get("offset", 0) + record.get("num_bytes", 0)
            except (ValueError, AttributeError, TypeError):
                raise DataError(
                    f"{path}, line {number}: not a record of a packing run",
                    fix="pack into an empty folder",
                ) from None
            if end > on_disk.get(name, 0):
                break  # the power went before these samples were on the disk
            records.add(record)
            kept_bytes += len(line) + 1
        if path.exists():
            os.truncate(path, kept_bytes)
        ends = {
            shard_name(shard, self._codec): size for shard, size in enumerate(records.shard_sizes())
        }
        for name in on_disk:
            if name in ends:
                os.truncate(self._folder / name, ends[name])
            else:
                (self._folder / name).unlink()
        return records

    def add_clip(
        self, item: int, data: bytes, num_samples: int, crc32: int, warnings: tuple[str, ...]
    ) -> None:
        """Append the bytes of one clip; a shard that would grow beyond its size is closed first."""
        if self._offset and self._offset + len(data) > self._shard_bytes:
            self.checkpoint()
            self._data.close()
            self._shard, self._offset = self._shard + 1, 0
            self._data = _open_append(self._shard_path(self._shard))
        _write_all(self._data, data)
        place = (item, self._shard, self._offset, len(data), num_samples, crc32)
        record: dict[str, Any] = dict(zip(_FIELDS, place, strict=True))
        if warnings:
            record["warnings"] = list(warnings)
        self._offset += len(data)
        self._add(record, len(data))

    def add_broken(self, item: int, reason: str) -> None:
        """Record a file that cannot be used."""
        self._add({"item": item, "reason": reason}, 0)

    def _add(self, record: dict[str, Any], size: int) -> None:
        self.records.add(record)
        self._pending.append(record)
        self._pending_bytes += size
        if self._pending_bytes >= CHECKPOINT_BYTES:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Samples to the disk first, then the records of them."""
        if not self._pending:
            return
        os.fsync(self._data.fileno())
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in self._pending)
        self._pending, self._pending_bytes = [], 0
        _write_all(self._journal, lines.encode(errors="backslashreplace"))
        os.fsync(self._journal.fileno())

    def close(self) -> None:
        """Checkpoint and close the files."""
        try:
            self.checkpoint()
        finally:
            self._data.close()
            self._journal.close()


def _open_append(path: Path) -> BinaryIO:
    # Unbuffered: a full disk is an error of this write, not of some later close.
    return open(path, "ab", buffering=0)


def _write_all(handle: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[handle.write(view) :]
