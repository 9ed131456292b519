"""Where banks come from: a folder, a list (CSV, Parquet) with a ``kind`` column, the simulator.

A source that is missing, empty or of the wrong kind is an error (P21), never a silent no-op.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glottis.audio import load, probe, to_int16
from glottis.augment._bank import Bank, Sound
from glottis.augment._base import AugmentContext
from glottis.augment.simulate import simulate_noise, simulate_room
from glottis.errors import AudioError, DataError
from glottis.rng import generator

log = logging.getLogger(__name__)

SIMULATED = "simulated"
LISTS = (".csv", ".parquet")
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a")
SHORTEST_EXCERPT_S = 4.0

_SIMULATED_KINDS = {
    "noise white": "white",
    "noise pink": "pink",
    "noise brown": "brown",
    "noise hum": "hum",
    "noise clicks": "clicks",
    "babble": "babble",
    "music": "music",
}
_COLUMNS = ("path", "kind", "speaker", "split", "label")
_CLIPS_PER_KIND = 4
_CLIP_S = 6.0


@dataclass(frozen=True)
class Row:
    """One file of a source."""

    path: Path
    name: str
    kind: str
    group: str


def load_bank(
    source: str,
    context: AugmentContext,
    *,
    kinds: Sequence[str] = (),
    split: str | None = None,
    max_seconds: float,
    rooms: bool = False,
) -> Bank:
    """Decode a source into a bank.

    source: a folder or a list, relative to ``context.root`` or absolute.
    kinds: keep rows of these kinds ("rir" also keeps "rir recorded"); empty keeps all.
    split: keep rows of this split where the list has a split column.
    max_seconds: of a larger source every file gives an excerpt; which one depends on the seed.
    rooms: impulse responses: whole files, because an excerpt would begin in the tail, each with
    its peak at 0.9, so that 16 bits hold the tail of a quiet room.
    Raises DataError naming the source if nothing is left or a file cannot be read.
    """
    rows = read_rows(source, context.root, split)
    kept = [row for row in rows if matches(row.kind, kinds)]
    if not kept:
        found = ", ".join(sorted({row.kind for row in rows if row.kind})) or "no kinds"
        wanted = f" of kind {' or '.join(kinds)}" if kinds else ""
        raise DataError(
            f"the noise source '{source}' has no files{wanted} (there are {len(rows)}: {found})",
            why="an augmentation without material would do nothing and say nothing",
            fix="correct 'source' or 'kinds'; 'simulated' needs no files",
            rule="P21",
        )
    sounds = _read(kept, context, max_seconds, rooms)
    bank = Bank(sounds, context.sample_rate, source)
    log.info("%s: %s", source, bank.card())
    return bank


def matches(kind: str, kinds: Sequence[str]) -> bool:
    """Is ``kind`` one of the kinds, or a finer one ("rir recorded" is a "rir")?"""
    return not kinds or any(kind == k or kind.startswith(k + " ") for k in kinds)


def read_rows(source: str, root: Path, split: str | None) -> list[Row]:
    """The files of a folder (kind = its first sub-folder) or of a list."""
    path = root / source
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        return [Row(p, p.relative_to(path).as_posix(), _first_folder(p, path), "") for p in files]
    if path.is_file():
        return _read_list(path, root, split)
    raise DataError(
        f"the noise source '{source}' does not exist ({path})",
        why="training would silently run without it",
        fix="give a folder or a list, absolute or relative to data.root, or 'simulated'",
        rule="P21",
    )


def _first_folder(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _read_list(path: Path, root: Path, split: str | None) -> list[Row]:
    """A list with a ``path`` column, and perhaps ``kind``, ``speaker``, ``split`` and ``label``.

    Spoofed speech is never material: as babble it would put spoofs into bona fide clips.
    """
    names, table = _read_table(path)
    if "path" not in names or any(not row["path"] for row in table):
        raise DataError(
            f"the list {path} has rows without a path; its columns are {', '.join(names)}",
            fix="first line of a CSV: path,kind (and perhaps speaker, split)",
            rule="P21",
        )
    rows = [
        row
        for row in table
        if (split is None or "split" not in names or row["split"] == split)
        and row.get("label") != "spoof"
    ]
    base = _base_of(path, root, rows)
    return [
        Row(
            base / str(row["path"]),
            str(row["path"]),
            row.get("kind") or "",
            row.get("speaker") or "",
        )
        for row in rows
    ]


def _base_of(path: Path, root: Path, rows: list[dict[str, str | None]]) -> Path:
    """What the paths of a list are relative to.

    data.root if the list is below it, or if the first file is there and not beside the list (a
    manifest that was written elsewhere); else the list's own folder.
    """
    if path.resolve().is_relative_to(root.resolve()):
        return root
    first = str(rows[0]["path"]) if rows else ""
    if first and not (path.parent / first).exists() and (root / first).exists():
        return root
    return path.parent


def _read_table(path: Path) -> tuple[list[str], list[dict[str, str | None]]]:
    """Names of the columns, and the rows."""
    import pyarrow  # only for Parquet, and slow to import
    from pyarrow import parquet

    try:
        if path.suffix == ".parquet":
            names = parquet.read_schema(path).names
            columns = [name for name in names if name in _COLUMNS]
            return names, parquet.read_table(path, columns=columns).to_pylist()
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or ()), list(reader)
    except (pyarrow.ArrowException, csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            f"the list {path} cannot be read: {error}",
            fix="give a folder of sounds or a list of them (CSV in UTF-8, or Parquet)",
            rule="P21",
        ) from error


def _read(rows: list[Row], context: AugmentContext, max_seconds: float, rooms: bool) -> list[Sound]:
    """Every row decoded at the context's rate, as whole files or as excerpts."""
    seconds = [_seconds(row) for row in rows]
    limit = float("inf") if rooms else fair_limit(seconds, max_seconds)
    sounds = []
    for row, length in _subset(rows, seconds, limit, max_seconds, context.seed):
        try:
            if length <= limit:
                audio = load(row.path, context.sample_rate)
            else:
                place = float(generator(context.seed, "excerpt", row.name).random())
                start = place * (length - limit)
                audio = load(row.path, context.sample_rate, start_s=start, duration_s=limit)
        except AudioError as error:
            raise _unreadable(row, error) from error
        peak = float(np.max(np.abs(audio.samples)))
        gain = 0.9 / peak if rooms and peak > 0 else 1.0
        sounds.append(Sound(row.name, row.kind, to_int16(audio.samples * gain), row.group))
    return sounds


def _seconds(row: Row) -> float:
    try:
        info = probe(row.path)
        if info.duration_s is not None:
            return info.duration_s
        return load(row.path).duration_s
    except (AudioError, OSError) as error:
        raise _unreadable(row, error) from error


def _unreadable(row: Row, error: Exception) -> DataError:
    reason = error.seen if isinstance(error, AudioError) else str(error)
    return DataError(
        f"a sound of the noise source cannot be used: {row.path}: {reason}",
        fix="remove it from the source",
        rule="P21",
    )


def fair_limit(seconds: Sequence[float], total: float) -> float:
    """The length at which every clip is cut so that all together have ``total`` seconds.

    Infinite if they fit anyway; never below SHORTEST_EXCERPT_S.
    """
    left = total
    for done, length in enumerate(sorted(seconds)):
        share = left / (len(seconds) - done)
        if length > share:
            return max(share, SHORTEST_EXCERPT_S)
        left -= length
    return float("inf")


def _subset(
    rows: list[Row], seconds: list[float], limit: float, total: float, seed: int
) -> list[tuple[Row, float]]:
    """All rows, or as many random ones as fit if even short excerpts of all would not."""
    pairs = list(zip(rows, seconds, strict=True))
    if sum(min(s, limit) for s in seconds) <= total * 1.001:
        return pairs
    kept, used = [], 0.0
    for index in generator(seed, "subset").permutation(len(pairs)):
        if used < total:
            kept.append(int(index))
            used += min(seconds[index], limit)
    return [pairs[index] for index in sorted(kept)]


# ---------------------------------------------------------------- simulated


def noise_bank(context: AugmentContext, kinds: Sequence[str]) -> Bank:
    """Simulated noise: 4 clips of 6 s of each kind (noise white, noise hum, babble, music ...)."""
    chosen = [kind for kind in _SIMULATED_KINDS if matches(kind, kinds)]
    if not chosen:
        raise DataError(
            f"there is no simulated noise of kind {' or '.join(kinds)}",
            fix=f"choose from: noise, {', '.join(_SIMULATED_KINDS)}",
            rule="P21",
        )
    sounds = [
        _simulated(f"{kind} {i}", kind, _SIMULATED_KINDS[kind], context)
        for kind in chosen
        for i in range(_CLIPS_PER_KIND)
    ]
    return Bank(sounds, context.sample_rate, SIMULATED)


def talker_bank(context: AugmentContext) -> Bank:
    """Simulated talkers, 6 s of each of 24."""
    sounds = [_simulated(f"talker {i}", "talker", "talker", context) for i in range(24)]
    return Bank(sounds, context.sample_rate, SIMULATED)


def room_bank(
    context: AugmentContext,
    num_rooms: int,
    rt60_s: tuple[float, float],
    direct_to_reverberant_db: tuple[float, float],
) -> Bank:
    """Simulated rooms with uniformly drawn reverberation time and direct-to-reverberant ratio."""
    sounds = []
    for i in range(num_rooms):
        rng = generator(context.seed, "room", i)
        seconds, ratio = rng.uniform(*rt60_s), rng.uniform(*direct_to_reverberant_db)
        room = simulate_room(context.sample_rate, seconds, ratio, rng)
        sounds.append(Sound(f"room {i}", "rir simulated", _scaled(room)))
    return Bank(sounds, context.sample_rate, SIMULATED)


def _simulated(name: str, kind: str, maker: str, context: AugmentContext) -> Sound:
    rng = generator(context.seed, "simulated", name)
    num_samples = int(_CLIP_S * context.sample_rate)
    noise = simulate_noise(maker, num_samples, context.sample_rate, rng)
    return Sound(name, kind, _scaled(noise))


def _scaled(samples: NDArray[np.float64]) -> NDArray[np.int16]:
    """With the largest sample at 0.9."""
    return to_int16((0.9 / np.max(np.abs(samples)) * samples).astype(np.float32))
