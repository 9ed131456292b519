"""A Kaldi data folder: ``wav.scp``, ``utt2spk``; ``spk2gender``, ``segments``, ``trials`` if there.

``wav.scp`` has lines ``utterance path``; a line with a command (``sox ... |``) or an offset into an
archive (``x.ark:123``) is refused: Glottis runs no commands from lists.  With ``segments``
(``utterance recording start end``, seconds) the names in ``wav.scp`` are recordings and the
manifest has ``start_s`` and ``end_s``.  Every utterance must be in both lists.
Absolute paths are made relative to ``audio_root``, which is then ``data.root``.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np

from glottis.data._files import some
from glottis.data._lines import read_lines
from glottis.data.corpora._layout import add_trials, existing, gender
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus
from glottis.errors import DataError

ARCHIVE = re.compile(r"\.ark:\d+(\[.*\])?$")


class KaldiConfig(CorpusConfig):
    """Options of the Kaldi reader."""

    audio_root: str = ""
    """The folder that the paths start from (default: the data folder itself)."""
    source: str = "kaldi"
    """Name of the collection."""
    split: str = ""
    """Split of all utterances."""


@register_corpus("kaldi", KaldiConfig)
def prepare(root: Path, config: KaldiConfig) -> Prepared:
    """A Kaldi data folder (wav.scp, utt2spk, segments); commands in wav.scp are refused."""
    existing(root, ("wav.scp",), "a Kaldi data folder")
    existing(root, ("utt2spk",), "a Kaldi data folder")
    base = (root / config.audio_root).resolve()
    recordings = _recordings(root, base)
    speakers = _pairs(root / "utt2spk", "list of speakers")
    reading = Reading(config.source, base)
    if (root / "segments").is_file():
        _add_segments(reading, root, recordings, speakers)
    else:
        _require_same(set(recordings), set(speakers), "wav.scp", "utt2spk")
        reading.add(
            len(recordings),
            utterance=list(recordings),
            path=list(recordings.values()),
            speaker=[speakers[name] for name in recordings],
        )
    genders = _pairs(root / "spk2gender", "list of genders")
    names = reading.columns["speaker"]
    reading.columns |= {
        "gender": [gender(genders.get(name, "")) for name in names],
        "source": [config.source] * len(names),
        "split": [config.split] * len(names),
    }
    reading.count("utterances", len(names))
    reading.count("speakers", len(set(names)))
    if (root / "trials").is_file():
        _add_trials(reading, root)
    return reading.finish(config)


def _add_trials(reading: Reading, root: Path) -> None:
    beside = Reading(reading.corpus, root, reading.columns)
    add_trials(beside, {"trials": ("trials", None)})
    reading.trials |= beside.trials
    reading.counts += beside.counts
    reading.notes += beside.notes


def _pairs(path: Path, what: str) -> dict[str, str]:
    """First cell -> second cell; a name that stands twice is an error."""
    if not path.is_file():
        return {}
    lines = read_lines(path, what, (2,))
    names, values = (column.to_pylist() for column in lines.columns)
    table = dict(zip(names, values, strict=True))
    if len(table) < len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"{path}: {len(twice)} names stand twice: {some(twice)}")
    return table


def _recordings(root: Path, base: Path) -> dict[str, str]:
    """Name -> path relative to ``base``, from ``wav.scp`` (a path may hold spaces)."""
    table: dict[str, str] = {}
    commands, archives, outside, twice, bare = [], [], [], [], []
    for line in (root / "wav.scp").read_text(encoding="utf-8-sig").splitlines():
        name, _, place = line.strip().partition(" ")
        if "\t" in name:
            name, _, place = line.strip().partition("\t")
        place = place.strip().replace("\\", "/")
        if not name:
            continue
        if not place:
            bare.append(name)
        elif place.endswith("|") or place == "-":
            commands.append(name)
        elif ARCHIVE.search(place):
            archives.append(name)
        elif name in table:
            twice.append(name)
        else:
            relative = _relative(place, base)
            if relative is None:
                outside.append(place)
            table[name] = relative or place
    problems = {
        "entries are commands, which are never run": (commands, "write the audio to files"),
        "entries are pieces of archives": (archives, "write the audio to files"),
        "entries have no path": (bare, "add the paths"),
        "names stand twice": (twice, "keep one line each"),
        f"paths are not under {base}": (outside, "set audio_root to their common folder"),
    }
    for text, (names, fix) in problems.items():
        if names:
            raise DataError(f"{root / 'wav.scp'}: {len(names)} {text}: {some(names, 5)}", fix=fix)
    return table


def _relative(place: str, base: Path) -> str | None:
    """``place`` relative to the root, None if it lies elsewhere."""
    path = Path(place)
    if not path.is_absolute():
        return place
    for candidate in (path, path.resolve()):
        if candidate.is_relative_to(base):
            return candidate.relative_to(base).as_posix()
    return None


def _add_segments(
    reading: Reading, root: Path, recordings: dict[str, str], speakers: dict[str, str]
) -> None:
    lines = read_lines(root / "segments", "list of segments", (4,))
    names, recording, start, end = (column.to_pylist() for column in lines.columns)
    _require_same(set(names), set(speakers), "segments", "utt2spk")
    unknown = sorted(set(recording) - set(recordings))
    if unknown:
        raise DataError(
            f"{root / 'segments'}: {len(unknown)} recordings are not in wav.scp: {some(unknown)}",
            fix="add them to wav.scp, or remove their segments",
        )
    try:
        starts, ends = np.array(start, np.float64), np.array(end, np.float64)
    except ValueError as error:
        raise DataError(
            f"{root / 'segments'}: {error}", fix="write 'utterance recording start end' in seconds"
        ) from None
    reading.add(
        len(names),
        utterance=names,
        path=[recordings[name] for name in recording],
        speaker=[speakers[name] for name in names],
        session=recording,
        start_s=starts,
        end_s=ends,
        duration_s=np.round(ends - starts, 6),
    )


def _require_same(first: set[str], second: set[str], first_file: str, second_file: str) -> None:
    for here, there, here_file, there_file in (
        (first, second, first_file, second_file),
        (second, first, second_file, first_file),
    ):
        lost = sorted(here - there)
        if lost:
            raise DataError(
                f"{len(lost)} utterances of {here_file} are not in {there_file}: {some(lost)}",
                why="an utterance without a speaker or a file would be left out unnoticed",
                fix="make the two lists agree",
            )
