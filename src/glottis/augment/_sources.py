"""Where banks come from: a folder, a list with a ``kind`` column, or the simulator.

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
    full_scale: bool = False,
) -> Bank:
    """Decode a source into a bank.

    source: a folder or a CSV list, relative to ``context.root`` or absolute.
    kinds: keep rows of these kinds ("rir" also keeps "rir recorded"); empty keeps all.
    split: keep rows of this split where the list has a split column.
    max_seconds: of a larger source every file gives an excerpt; which one depends on the seed.
    full_scale: bring every clip's peak to 0.9, so that 16 bits hold the tail of a quiet room.
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
    sounds = _read(kept, context, max_seconds, full_scale)
    bank = Bank(sounds, context.sample_rate, source)
    log.info("%s: %s", source, bank.card())
    return bank


def matches(kind: str, kinds: Sequence[str]) -> bool:
    """Is ``kind`` one of the kinds, or a finer one ("rir recorded" is a "rir")?"""
    return not kinds or any(kind == k or kind.startswith(k + " ") for k in kinds)


def read_rows(source: str, root: Path, split: str | None) -> list[Row]:
    """The files of a folder (kind = its first sub-folder) or of a CSV list."""
    path = root / source
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        return [Row(p, p.relative_to(path).as_posix(), _first_folder(p, path), "") for p in files]
    if path.is_file():
        return _read_list(path, root, split)
    raise DataError(
        f"the noise source '{source}' does not exist ({path})",
        why="training would silently run without it",
        fix="give a folder or a CSV list, absolute or relative to data.root, or 'simulated'",
        rule="P21",
    )


def _first_folder(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _read_list(path: Path, root: Path, split: str | None) -> list[Row]:
    """CSV with a ``path`` column, and perhaps ``kind``, ``speaker``, ``split`` and ``label``.

    Paths are relative to data.root if the list is below it, else to the list's own folder.  Spoofed
    speech is never material: as babble it would put spoofs into bona fide clips.
    """
    base = root if path.resolve().is_relative_to(root.resolve()) else path.parent
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if "path" not in (reader.fieldnames or ()):
            raise DataError(
                f"the list {path} has no 'path' column, but {reader.fieldnames}",
                fix="first line: path,kind (and perhaps speaker, split)",
                rule="P21",
            )
        return [
            Row(base / row["path"], row["path"], row.get("kind") or "", row.get("speaker") or "")
            for row in reader
            if (split is None or "split" not in row or row["split"] == split)
            and row.get("label") != "spoof"
        ]


def _read(
    rows: list[Row], context: AugmentContext, max_seconds: float, full_scale: bool
) -> list[Sound]:
    """Every row decoded at the context's rate, as whole files or as excerpts."""
    seconds = [_seconds(row) for row in rows]
    limit = fair_limit(seconds, max_seconds)
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
        gain = 0.9 / peak if full_scale and peak > 0 else 1.0
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
