"""The files of a packed store: names, meta data, index.  Written once, atomically, read by many.

DST/pack.json        format version, rate, codec, totals, finished
DST/index.arrow      utterance, shard, offset, num_bytes, num_samples, crc32 (one row a clip)
DST/shard-00000.i16  little-endian 16-bit samples, clip after clip   (codec pcm16)
DST/shard-00000.flacs  FLAC files, one after the other               (codec flac)
DST/quarantine.jsonl, DST/warnings.jsonl    files left out; files that are odd
DST/journal.jsonl    only while packing
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from glottis.errors import DataError
from glottis.files import replacing, temporary_prefix

FORMAT = "glottis-packed-store"
VERSION = 1
Codec = Literal["pcm16", "flac"]
SUFFIX: dict[str, str] = {"pcm16": ".i16", "flac": ".flacs"}
META, INDEX, JOURNAL = "pack.json", "index.arrow", "journal.jsonl"
QUARANTINE, WARNINGS, LOCK = "quarantine.jsonl", "warnings.jsonl", ".lock"
_COLUMNS = {
    "shard": np.uint32,
    "offset": np.int64,  # in bytes
    "num_bytes": np.int64,
    "num_samples": np.int64,
    "crc32": np.uint32,  # of the stored bytes
}


def shard_name(shard: int, codec: str) -> str:
    """``shard-00000.i16``."""
    return f"shard-{shard:05d}{SUFFIX[codec]}"


def write_atomic(path: Path, content: bytes) -> None:
    """The whole content or nothing, and on the disk before anything that is written later."""
    with replacing(path) as temporary:  # `pack` turns errors of the disk into its own
        temporary.write_bytes(content)


def is_leftover(path: Path) -> bool:
    """Whether this is a half-written file of a packing run that was killed."""
    names = (META, INDEX, WARNINGS)
    return path.suffix == ".tmp" and path.name.startswith(
        tuple(temporary_prefix(path.with_name(name)) for name in names)
    )


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One JSON object a line, atomically; no file at all for no rows."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if text:
        write_atomic(path, text.encode(errors="backslashreplace"))
    else:
        path.unlink(missing_ok=True)


def write_index(path: Path, utterances: list[str], columns: dict[str, list[int]]) -> None:
    """The index as an uncompressed Arrow file of one batch, so that columns map without a copy."""
    import pyarrow  # 0.1 s to import: only those who need it

    arrays = [pyarrow.array(utterances, pyarrow.large_string())]
    arrays += [pyarrow.array(np.array(columns[name], kind)) for name, kind in _COLUMNS.items()]
    batch = pyarrow.record_batch(arrays, names=["utterance", *_COLUMNS])
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    write_atomic(path, sink.getvalue().to_pybytes())


def read_index(path: Path) -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
    """(pyarrow array of utterances, numpy columns); the columns are views of the mapped file."""
    import pyarrow

    try:
        with pyarrow.memory_map(os.fspath(path)) as source:
            table = pyarrow.ipc.open_file(source).read_all().combine_chunks()
        arrays = {
            name: table[name].chunk(0).to_numpy() if len(table) else np.zeros(0, kind)
            for name, kind in _COLUMNS.items()
        }
        return table["utterance"].combine_chunks(), arrays
    except (OSError, KeyError, pyarrow.ArrowInvalid) as error:
        raise DataError(
            f"{path}: the index cannot be read ({error})", fix="pack again into an empty folder"
        ) from None


def read_meta(folder: Path) -> dict[str, Any]:
    """The content of pack.json.  Raises DataError if it is missing, foreign or newer."""
    path = folder / META
    try:
        meta = json.loads(path.read_bytes())
    except OSError as error:
        what = "is not a packed store" if folder.is_dir() else "is not a folder"
        raise DataError(
            f"{folder} {what} ({META}: {error.strerror})",
            fix="make one with: glottis pack MANIFEST DST",
        ) from None
    except ValueError:
        meta = None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise DataError(f"{path} does not describe a packed store", fix="pack into another folder")
    if meta.get("version", 0) > VERSION:
        raise DataError(
            f"{folder} has store format {meta['version']}; this Glottis reads up to {VERSION}",
            why=f"it was packed by Glottis {meta.get('glottis', '?')}",
            fix="update Glottis, or pack again with this version",
        )
    return meta
