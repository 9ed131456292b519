"""How corpora lie on a disk: finding folders, walking files, reading components of a path.

A path component means something only at its place relative to the root and only with a value from
a fixed set; what lies above the root (a folder that is called ``real``, say) never matters.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from glottis.data._files import some
from glottis.data.corpora._prepared import Reading
from glottis.data.manifest_io import read_delimited
from glottis.data.trials import EvaluationTrials
from glottis.errors import DataError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".mp4", ".webm")
GENDERS = {"m": "m", "male": "m", "f": "f", "female": "f"}
Allowed = re.Pattern[str] | Collection[str] | None
_SHOWN = 5


def existing(root: Path, candidates: Sequence[str], corpus: str) -> list[str]:
    """Those of the candidate folders or files (relative to the root) that exist, at least one."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder", fix=f"give the folder of {corpus}")
    found = [name for name in candidates if (root / name).exists()]
    if not found:
        inside = sorted(entry.name for entry in os.scandir(root))
        raise DataError(
            f"{root} does not look like {corpus}: none of {', '.join(candidates)} is there; "
            f"it holds {some(inside) or 'nothing'}",
            fix="give the folder that docs/corpora.md shows for this corpus",
        )
    return found


def audio_files(
    root: Path, folder: str = "", suffixes: Collection[str] = AUDIO_SUFFIXES
) -> list[str]:
    """Sorted paths, relative to ``root`` and with forward slashes, of the audio under ``folder``.

    Links are followed, loops of links are not; hidden files (``._x.wav``) are no audio.
    """
    found: list[str] = []
    todo: list[tuple[str, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while todo:
        here, above = todo.pop()
        place = root / here
        status = place.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:  # a link to a folder that we are in
            continue
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                path = f"{here}/{entry.name}" if here else entry.name
                if entry.is_dir():
                    todo.append((path, above | {identity}))
                elif os.path.splitext(entry.name)[1].lower() in suffixes:
                    found.append(path)
    return sorted(found)


def by_stem(paths: Sequence[str], corpus: str) -> dict[str, str]:
    """File name without suffix -> path; two files of one name are an error."""
    table: dict[str, str] = {}
    twice = []
    for path in paths:
        stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        if table.setdefault(stem, path) != path:
            twice.append(f"{table[stem]} and {path}")
    if twice:
        raise DataError(
            f"{corpus}: {len(twice)} utterances have two files: {some(twice, _SHOWN)}",
            fix="keep one file for each utterance",
        )
    return table


def without_suffix(path: str) -> str:
    """``a/b.wav`` -> ``a/b``."""
    return path.rsplit(".", 1)[0]


def components(
    paths: Sequence[str],
    names: Sequence[str],
    allowed: Mapping[str, Allowed],
    corpus: str,
    *,
    deeper: bool = False,
) -> dict[str, list[str]]:
    """The parts of each path by name; every path must have exactly these parts.

    allowed: name -> the set of values or the pattern that a part must match.
    deeper: the last part may hold further folders.
    Any other path is an error that is reported with all its like.
    """
    columns: dict[str, list[str]] = {name: [] for name in names}
    bad: list[str] = []
    for path in paths:
        parts = path.split("/", len(names) - 1) if deeper else path.split("/")
        if len(parts) != len(names):
            bad.append(f"{path} (has {len(parts)} parts, not {'/'.join(names)})")
            continue
        for name, part in zip(names, parts, strict=True):
            if not _fits(part, allowed.get(name)):
                bad.append(f"{path} ({name} is '{part}')")
                break
        else:
            for name, part in zip(names, parts, strict=True):
                columns[name].append(part)
    if bad:
        fixed = {name: sorted(v) for name, v in allowed.items() if isinstance(v, Collection)}
        known = "; ".join(f"{name} is one of {', '.join(v)}" for name, v in fixed.items())
        raise DataError(
            f"{corpus}: {len(bad)} files do not lie where they should: {some(bad, _SHOWN)}",
            why="speakers and labels come from one fixed place of the path, never from a guess",
            fix=f"move them away or restore the published layout {'/'.join(names)}"
            + (f"; {known}" if known else ""),
            rule="P16",
        )
    return columns


def _fits(part: str, allowed: Allowed) -> bool:
    if allowed is None:
        return bool(part)
    if isinstance(allowed, re.Pattern):
        return allowed.fullmatch(part) is not None
    return part in allowed


def read_table(
    path: Path, delimiter: str, required: Sequence[str], *, quoting: bool = True
) -> dict[str, np.ndarray]:
    """Columns (N,) of a metadata file with a header; missing columns are an error."""
    table = read_delimited(path, delimiter, quoting=quoting)
    missing = [name for name in required if name not in table.column_names]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(table.column_names)}",
            fix="use the file as it was published",
        )
    return {name: np.array(table[name].to_pylist(), dtype=object) for name in table.column_names}


def gender(word: str) -> str:
    """``m``, ``f``, or empty for anything else."""
    return GENDERS.get(word.strip().lower(), "")


def add_trials(reading: Reading, files: Mapping[str, tuple[str, int | None]]) -> None:
    """Official trial lists that lie beside the audio: counted, and their utterances looked up.

    files: name -> (path relative to the root, published number of trials).
    """
    known = set(reading.columns.get("utterance", []))
    for name, (path, published) in files.items():
        place = reading.root / path
        if not place.is_file():
            continue
        trials = EvaluationTrials.read(place)
        reading.trials[name] = place
        reading.count(f"trials in {path}", len(trials), published)
        unknown = sorted(set(trials.keys.tolist()) - known)
        if unknown:
            reading.notes.append(
                f"{len(unknown)} of {len(trials.keys)} utterances of {path} have no file: "
                f"{some(unknown)}"
            )
