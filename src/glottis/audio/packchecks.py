"""What `pack` refuses before it starts, and how it says so."""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glottis.audio.channels import Channel, check_channel
from glottis.audio.packestimate import PackItem, estimate
from glottis.audio.packworkers import Settings
from glottis.audio.storefiles import JOURNAL, LOCK, META, SUFFIX, Codec, is_leftover, read_meta
from glottis.errors import ConfigError, DataError, TrainingStopped


def existing_meta(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """What is packed or half packed in the folder.  Raises DataError if it is something else."""
    if not (folder / META).exists():
        foreign = sorted(p.name for p in folder.iterdir() if p.name != LOCK and not is_leftover(p))
        if foreign:
            raise DataError(
                f"{folder} is not empty (it has {foreign[0]}) and not a packed store",
                fix="name a new folder",
            )
        return None
    meta = read_meta(folder)
    changed = [
        f"{key} ({meta.get(key)} there, {value} now)"
        for key, value in identity.items()
        if key != "items_sha256" and meta.get(key) != value
    ]
    if meta.get("items_sha256") != identity["items_sha256"]:
        changed.append("the list of utterances and paths")
    if changed and not meta["finished"] and not _has_records(folder):
        return None  # a run that was refused before its first clip binds nobody
    if changed:
        state = "a finished store" if meta["finished"] else "an interrupted store"
        raise DataError(
            f"{folder} holds {state} that differs in: {', '.join(changed)}",
            fix="pack into a new folder, or remove this one first",
        )
    return meta


def _has_records(folder: Path) -> bool:
    path = folder / JOURNAL
    return path.exists() and path.stat().st_size > 0


def check_arguments(
    items: Sequence[PackItem],
    sample_rate: int,
    codec: Codec,
    channel: Channel,
    workers: int | None,
    shard_mb: int,
    budget: int | None,
) -> Settings:
    """The settings of every file, or an error that says which argument is wrong."""
    if codec not in SUFFIX:
        raise ConfigError(f"there is no codec '{codec}'", fix=f"use one of: {', '.join(SUFFIX)}")
    check_channel(channel)
    for name, value, least in (
        ("sample_rate", sample_rate, 1),
        ("workers", workers, 0),
        ("shard_mb", shard_mb, 1),
        ("budget", budget, 0),
    ):
        if value is not None and (isinstance(value, bool) or int(value) != value or value < least):
            raise ConfigError(f"{name} must be a whole number from {least}, not {value!r}")
    counts = Counter(item.utterance for item in items)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DataError(
            f"{len(twice)} utterance ids occur more than once: {', '.join(twice[:5])}",
            why="a store finds a clip by its id",
            fix="make the column 'utterance' of the manifest unique",
        )
    if not items:
        raise DataError("there is nothing to pack: zero items", fix="check the manifest or filter")
    return Settings(sample_rate, codec, channel)


def check_space(items: Sequence[PackItem], folder: Path, settings: Settings, num_todo: int) -> None:
    """Refuse before hours of work what cannot fit or cannot be read."""
    guess = estimate(items, settings.codec, settings.sample_rate, dst=folder)
    if len(guess.unreadable) == guess.num_sampled:
        raise DataError(
            f"none of {guess.num_sampled} sampled files can be read; the first: "
            f"{guess.unreadable[0].reason}",
            fix="check the root that the paths start from",
        )
    needed = guess.bytes * num_todo // len(items)
    if needed * 1.05 > guess.free_bytes:
        raise DataError(
            f"{folder}: the store needs about {needed / 1e9:.2f} GB, "
            f"{guess.free_bytes / 1e9:.2f} GB are free",
            fix="free space, choose another folder, or use codec flac (about two thirds)",
        )


def cannot_write(folder: Path, error: OSError) -> DataError | TrainingStopped:
    """An error of the file system in our words; a full disk is no reason to begin again."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TrainingStopped(
            f"{folder}: the disk is full",
            why="what was packed so far is kept",
            fix="free space and run the same command again; it goes on where it stopped",
        )
    place = error.filename or folder
    return DataError(f"{place}: cannot be written ({error.strerror or error})")


def items_hash(items: Sequence[PackItem]) -> str:
    """What makes two lists of items the same: utterances, paths and pieces, in order."""
    digest = hashlib.sha256()
    for item in items:
        whole = item.start_s == 0 and item.end_s is None
        piece = "" if whole else f"\0{item.start_s!r}\0{item.end_s!r}"
        text = f"{item.utterance}\0{os.fspath(item.path)}{piece}\n"
        digest.update(text.encode(errors="surrogateescape"))
    return digest.hexdigest()
