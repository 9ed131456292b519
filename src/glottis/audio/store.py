"""The packed store: a corpus decoded once; a crop is a slice of memory-mapped 16-bit samples."""

from __future__ import annotations

import errno
import io
import mmap
import os
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from glottis.audio.storefiles import INDEX, META, read_index, read_meta, shard_name
from glottis.errors import DataError


class PackedStore:
    """A finished store, read-only.  Cheap to pickle and safe after fork: each process maps it anew.

    path: the folder that `pack` wrote.
    Raises DataError if it is not a store, not finished, incomplete, or of a newer format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.meta = read_meta(self.path)
        if not self.meta["finished"]:
            raise DataError(
                f"{self.path}: packing was not finished",
                fix="run the same pack command again; it goes on where it stopped",
            )
        self.sample_rate = int(self.meta["sample_rate"])
        self.codec = str(self.meta["codec"])
        self._names, columns = read_index(self.path / INDEX)
        self._shard, self._offset = columns["shard"], columns["offset"]
        self._num_bytes, self._crc32 = columns["num_bytes"], columns["crc32"]
        self.lengths: NDArray[np.int64] = columns["num_samples"]  # (N,) samples
        self._first_sample = self._offset // 2  # pcm16: where a clip begins in its shard
        self._shards: list[NDArray[Any] | None] = [None] * len(self.meta["shards"])
        self._check_sizes()

    def _check_sizes(self) -> None:
        if len(self.lengths) != self.meta["num_utterances"]:
            raise DataError(f"{self.path}: {INDEX} and {META} do not belong together")
        for shard, size in enumerate(self.meta["shards"]):
            path = self.path / shard_name(shard, self.codec)
            found = path.stat().st_size if path.exists() else None
            if found != size:
                raise DataError(
                    f"{path}: {'missing' if found is None else f'{found} bytes'}, "
                    f"{size} bytes were packed",
                    why="the copy of this store is incomplete",
                    fix="copy it again, or pack again into an empty folder",
                )

    def __len__(self) -> int:
        return len(self.lengths)

    def __reduce__(self) -> tuple[Any, ...]:
        return (PackedStore, (self.path,))

    def read(self, index: int, start: int = 0, num: int | None = None) -> NDArray[np.int16]:
        """Samples start .. start + num of clip ``index``; to its end if num is None.

        (num,) int16.  pcm16: a read-only view of the mapped file, no copy; flac: decoded.
        Raises IndexError beyond the clip: the next bytes belong to somebody else.
        """
        length = self.lengths.item(index)
        if num is None:
            num = length - start
        if start < 0 or num < 0 or start + num > length:
            raise IndexError(f"samples {start}..{start + num} of clip {index}, which has {length}")
        shard = self._shard.item(index)
        data = self._shards[shard]
        if data is None:
            data = self._map(shard)
        if self.codec == "pcm16":
            first = self._first_sample.item(index) + start
            samples: NDArray[np.int16] = data[first : first + num]
            return samples
        return self._read_flac(data, index, start, num)

    def _read_flac(self, data: NDArray[Any], index: int, start: int, num: int) -> NDArray[np.int16]:
        offset = self._offset.item(index)
        blob = io.BytesIO(data[offset : offset + self._num_bytes.item(index)].tobytes())
        try:
            with soundfile.SoundFile(blob) as file:
                file.seek(start)
                samples: NDArray[np.int16] = file.read(num, dtype="int16")
        except soundfile.LibsndfileError as error:
            raise self._damaged([index], str(error.error_string)) from None
        if len(samples) != num:
            raise self._damaged([index], f"{len(samples)} of {num} samples decode")
        return samples

    def _map(self, shard: int) -> NDArray[Any]:
        path = self.path / shard_name(shard, self.codec)
        try:
            with open(path, "rb") as handle:
                mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            fix = ""
            if error.errno == errno.EMFILE:
                fix = "allow more open files (ulimit -n 65536), or pack with a larger shard size"
            raise DataError(f"{path}: cannot be mapped ({error.strerror})", fix=fix) from None
        # A plain array over the mapping: slicing a np.memmap costs three times as much.
        data = np.frombuffer(mapped, "<i2" if self.codec == "pcm16" else np.uint8)
        self._shards[shard] = data
        return data

    @cached_property
    def utterances(self) -> list[str]:
        """The names of all clips, in the order of the manifest that was packed."""
        names: list[str] = self._names.to_pylist()
        return names

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.utterances)}

    def index_of(self, utterance: str) -> int:
        """The position of one utterance.  Raises DataError if it was not packed."""
        index = self._positions.get(utterance)
        if index is None:
            raise self._unknown([utterance])
        return index

    def indices_of(self, utterances: Sequence[str]) -> NDArray[np.int64]:
        """Positions of many utterances at once.  Raises DataError naming those not packed."""
        import pyarrow
        import pyarrow.compute

        wanted = pyarrow.array(utterances, pyarrow.large_string())
        found = pyarrow.compute.index_in(wanted, value_set=self._names)
        if found.null_count:
            missing = wanted.filter(found.is_null())
            raise self._unknown(missing.slice(0, 5).to_pylist(), len(missing))
        positions: NDArray[np.int64] = found.to_numpy().astype(np.int64)
        return positions

    def __contains__(self, utterance: object) -> bool:
        return utterance in self._positions

    def num_samples(self, index: int) -> int:
        """The length of one clip."""
        return int(self.lengths.item(index))

    @property
    def duration_s(self) -> float:
        """Seconds of sound in the whole store."""
        return float(self.lengths.sum()) / self.sample_rate

    def verify(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Read everything and compare the checksums; returns how many clips were checked.

        progress: called with (done, total) after each clip.
        Raises DataError naming the clips whose bytes changed.
        """
        damaged = []
        for index in range(len(self)):
            shard, offset = self._shard.item(index), self._offset.item(index)
            data = self._shards[shard]
            whole = (self._map(shard) if data is None else data).view(np.uint8)
            stored = whole[offset : offset + self._num_bytes.item(index)]
            if zlib.crc32(stored.data) != self._crc32.item(index):
                damaged.append(index)
            if progress is not None:
                progress(index + 1, len(self))
        if damaged:
            raise self._damaged(damaged, "the checksum differs")
        return len(self)

    def _damaged(self, indices: list[int], reason: str) -> DataError:
        names = ", ".join(self.utterances[i] for i in indices[:5])
        more = f" and {len(indices) - 5} more" if len(indices) > 5 else ""
        return DataError(
            f"{self.path}: {len(indices)} clips are damaged ({reason}): {names}{more}",
            why="training on changed samples would go unnoticed",
            fix="copy the store again, or pack again into an empty folder",
        )

    def _unknown(self, names: Sequence[str], count: int = 1) -> DataError:
        left_out = self.meta["num_quarantined"]
        why = (
            f"{left_out} broken files were left out of it: see quarantine.jsonl" if left_out else ""
        )
        return DataError(
            f"{self.path}: {count} utterances are not in this store: {', '.join(names)}",
            why=why,
            fix="pack the manifest that names them, or leave them out of it",
        )
