"""`pack`: a corpus into one store, in parallel, resumable after any kill.

The shards are written by this process alone, in the order of the items, so the store is the same,
byte for byte, whatever the number of workers and however often the run was killed.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glottis.audio.channels import Channel
from glottis.audio.journal import Journal, Records
from glottis.audio.packchecks import (
    cannot_write,
    check_arguments,
    check_space,
    existing_meta,
    items_hash,
)
from glottis.audio.packestimate import PackItem
from glottis.audio.packlock import only_packer
from glottis.audio.packworkers import Settings, encode_files
from glottis.audio.quarantine import Broken, Quarantine, read_records
from glottis.audio.storefiles import (
    FORMAT,
    INDEX,
    JOURNAL,
    META,
    QUARANTINE,
    VERSION,
    WARNINGS,
    Codec,
    is_leftover,
    write_atomic,
    write_index,
    write_json_lines,
)
from glottis.audio.types import warning_code
from glottis.errors import DataError
from glottis.version import __version__

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 5.0
_PROGRESS_SECONDS = 0.2
_FEW = 64  # below this, starting processes costs more than it brings


@dataclass(frozen=True)
class PackProgress:
    """Where a run is.  done and total count files, also those packed before this run began."""

    done: int
    total: int
    num_broken: int
    clips_per_second: float
    eta_s: float | None


@dataclass(frozen=True)
class PackReport:
    """What a run did.

    already_finished: the store was there; nothing was done.
    num_resumed: clips that an earlier, interrupted run had packed.
    warnings: code -> number of clips (the list is DST/warnings.jsonl).
    quarantined: the files left out (also in DST/quarantine.jsonl).
    """

    path: Path
    num_utterances: int
    duration_s: float
    num_bytes: int
    quarantined: tuple[Broken, ...]
    warnings: dict[str, int]
    already_finished: bool
    num_resumed: int
    wall_s: float


def pack(
    items: Sequence[PackItem],
    dst: str | os.PathLike[str],
    *,
    sample_rate: int = 16000,
    codec: Codec = "pcm16",
    channel: Channel = "mix",
    workers: int | None = None,
    shard_mb: int = 512,
    budget: int | None = None,
    progress: Callable[[PackProgress], None] | None = None,
) -> PackReport:
    """Decode every item once and write the packed store ``dst``.

    workers: processes that decode; 0 decodes here; None takes one per core (0 for a few files).
    Scripts need ``if __name__ == "__main__":`` around a call that starts workers.
    budget: how many files may be broken (they are left out and listed); None allows 1 %, at
    least 10.  One more raises TrainingStopped.
    progress: called a few times a second, and at the end.
    A call on an interrupted store goes on where it stopped; on a finished store of the same items
    it does nothing and says so; with other items or settings it raises DataError.
    """
    began = time.monotonic()
    settings = check_arguments(items, sample_rate, codec, channel, workers, shard_mb, budget)
    folder = Path(dst)
    identity = {
        "format": FORMAT,
        "version": VERSION,
        "sample_rate": sample_rate,
        "codec": codec,
        "channel": channel,
        "items_sha256": items_hash(items),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = existing_meta(folder, identity)
        if old is not None and old["finished"]:  # before the lock: the store may be read-only
            return _already_finished(folder, old, began)
        with only_packer(folder):
            old = existing_meta(folder, identity)  # another process may just have finished it
            if old is not None and old["finished"]:
                return _already_finished(folder, old, began)
            for path in filter(is_leftover, list(folder.iterdir())):
                path.unlink()
            if old is not None:
                shard_mb = old["shard_mb"]
            meta = identity | {"shard_mb": shard_mb, "glottis": __version__, "finished": False}
            write_atomic(folder / META, _json(meta))
            # An earlier part of the run may have listed files that have been repaired since.
            (folder / QUARANTINE).unlink(missing_ok=True)
            if budget is None:
                budget = max(10, -(-len(items) // 100))
            quarantine = Quarantine(folder / QUARANTINE, budget)
            with closing(Journal(folder, codec, shard_mb << 20)) as journal:
                num_resumed = len(journal.records)
                _run(items, folder, settings, workers, journal, quarantine, progress)
            meta = _finish(items, folder, meta, journal.records)
            return _report(folder, meta, num_resumed, began)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _run(
    items: Sequence[PackItem],
    folder: Path,
    settings: Settings,
    workers: int | None,
    journal: Journal,
    quarantine: Quarantine,
    progress: Callable[[PackProgress], None] | None,
) -> None:
    """Pack what the journal does not have yet.  Files that were broken before are tried again."""
    packed = set(journal.records.columns["item"])
    todo = [position for position in range(len(items)) if position not in packed]
    if not todo:
        return
    check_space(items, folder, settings, len(todo))
    if workers is None:
        workers = _num_cores() if len(todo) >= _FEW else 0
    if packed:
        log.info("going on after %d of %d clips", len(packed), len(items))
    began = checkpoint = shown = time.monotonic()
    with closing(encode_files(todo, items, settings, workers)) as outcomes:
        for count, outcome in enumerate(outcomes, start=1):
            position = outcome.position
            if outcome.reason is None:
                journal.add_clip(
                    position, outcome.data, outcome.num_samples, outcome.crc32, outcome.warnings
                )
            else:
                journal.add_broken(position, outcome.reason)
                quarantine.add(items[position].utterance, items[position].path, outcome.reason)
            now = time.monotonic()
            if now - checkpoint >= CHECKPOINT_SECONDS:
                journal.checkpoint()
                checkpoint = now
            if progress and (now - shown >= _PROGRESS_SECONDS or count == len(todo)):
                rate = count / max(now - began, 1e-9)
                progress(
                    PackProgress(
                        done=len(packed) + count,
                        total=len(items),
                        num_broken=len(quarantine),
                        clips_per_second=rate,
                        eta_s=(len(todo) - count) / rate,
                    )
                )
                shown = now


def _finish(
    items: Sequence[PackItem], folder: Path, meta: dict[str, Any], records: Records
) -> dict[str, Any]:
    """Index, lists and, last of all, the mark that the store is finished."""
    if not len(records):
        reason = next(iter(records.broken.values()))
        raise DataError(
            f"{folder}: none of the {len(items)} files could be decoded; the first: {reason}",
            fix="check the root that the paths start from",
        )
    columns = records.columns
    order = sorted(range(len(records)), key=columns["item"].__getitem__)
    names = [items[columns["item"][row]].utterance for row in order]
    fields = ("shard", "offset", "num_bytes", "num_samples", "crc32")
    write_index(folder / INDEX, names, {f: [columns[f][row] for row in order] for f in fields})
    write_json_lines(
        folder / WARNINGS,
        (
            {"utterance": items[i].utterance, "path": os.fspath(items[i].path), "warnings": odd}
            for i, odd in sorted(records.warnings.items())
        ),
    )
    codes = Counter(warning_code(text) for odd in records.warnings.values() for text in odd)
    meta = meta | {
        "num_utterances": len(records),
        "num_quarantined": len(records.broken),
        "num_samples": sum(columns["num_samples"]),
        "shards": records.shard_sizes(),
        "warnings": dict(sorted(codes.items())),
        "finished": True,
    }
    write_atomic(folder / META, _json(meta))
    (folder / JOURNAL).unlink()
    return meta


def _already_finished(folder: Path, meta: dict[str, Any], began: float) -> PackReport:
    log.info("%s is finished already (%d clips)", folder, meta["num_utterances"])
    return _report(folder, meta, 0, began, already_finished=True)


def _report(
    folder: Path,
    meta: dict[str, Any],
    num_resumed: int,
    began: float,
    already_finished: bool = False,
) -> PackReport:
    quarantine = folder / QUARANTINE
    return PackReport(
        path=folder,
        num_utterances=meta["num_utterances"],
        duration_s=meta["num_samples"] / meta["sample_rate"],
        num_bytes=sum(meta["shards"]),
        quarantined=tuple(read_records(quarantine)) if quarantine.exists() else (),
        warnings=meta["warnings"],
        already_finished=already_finished,
        num_resumed=num_resumed,
        wall_s=time.monotonic() - began,
    )


def _json(meta: dict[str, Any]) -> bytes:
    return (json.dumps(meta, indent=2) + "\n").encode()


def _num_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
