"""VoxCeleb2: celebrities in videos, read straight from the published m4a files.

Chung, Nagrani, Zisserman, "VoxCeleb2: deep speaker recognition", Interspeech 2018.
2,442 hours; development 1,092,009 utterances of 5,994 speakers, test 36,237 of 118; 16 kHz AAC,
many languages.  Licence: CC-BY-4.0 for the lists; the videos belong to their owners.
Layout: ``aac/id00012/21Uxsk56VDQ/00001.m4a`` (speaker / video / segment) with ``vox2_meta.csv``
beside ``aac``, or ``dev/aac`` and ``test/aac``.  Which speakers are test speakers is read from the
folder or from the table; if neither is there, ``part`` has to say it.
No official verification trials: report on VoxCeleb1.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from glottis.data._files import some
from glottis.data.corpora._layout import audio_files, components, existing, gender, without_suffix
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus
from glottis.errors import DataError

NAME = "VoxCeleb2"
FOLDERS = ("aac", "wav", "dev/aac", "test/aac", "dev/wav", "test/wav")
META = "vox2_meta.csv"
SPEAKER = re.compile(r"id0\d{4}")
SPLITS = {"dev": "train", "test": "test"}
PUBLISHED = {"train": 1_092_009, "test": 36_237}
PUBLISHED_SPEAKERS = {"train": 5_994, "test": 118}


class VoxCeleb2Config(CorpusConfig):
    """Options of the VoxCeleb2 reader."""

    part: Literal["auto", "dev", "test"] = "auto"
    """What a folder ``aac`` without ``vox2_meta.csv`` holds: the development or the test part."""


@register_corpus("voxceleb2", VoxCeleb2Config)
def prepare(root: Path, config: VoxCeleb2Config) -> Prepared:
    """Videos of 6,112 celebrities, a million utterances; the usual training corpus."""
    reading = Reading(NAME, root)
    folders = existing(root, FOLDERS, NAME)
    meta = _meta(root)
    for folder in folders:
        paths = audio_files(root, folder, (".m4a", ".wav", ".flac"))
        inside = [path[len(folder) + 1 :] for path in paths]
        parts = components(inside, ("speaker", "video", "file"), {"speaker": SPEAKER}, NAME)
        reading.add(
            len(paths),
            utterance=[without_suffix(path) for path in inside],
            path=paths,
            speaker=parts["speaker"],
            session=parts["video"],
            split=_splits(folder, parts["speaker"], meta, config),
            gender=[meta.get(name, ("", ""))[0] for name in parts["speaker"]],
            source=NAME,
            licence="CC-BY-4.0 (lists; the videos belong to their owners)",
        )
    if not meta:
        reading.notes.append(f"no {META} beside the audio: genders are not known")
    reading.count_splits(PUBLISHED)
    splits, speakers = reading.columns.get("split", []), reading.columns.get("speaker", [])
    pairs = set(zip(splits, speakers, strict=True))
    for split in dict.fromkeys(splits):
        found = sum(name == split for name, _ in pairs)
        reading.count(f"{split} speakers", found, PUBLISHED_SPEAKERS[split])
    return reading.finish(config)


def _splits(
    folder: str, speakers: list[str], meta: dict[str, tuple[str, str]], config: VoxCeleb2Config
) -> list[str]:
    """The split of each row: by the folder, else by the table, else by the option."""
    part = folder.split("/")[0] if "/" in folder else config.part
    if part != "auto":
        return [SPLITS[part]] * len(speakers)
    if not meta:
        raise DataError(
            f"{folder}/ may hold the development part, the test part or both",
            why="118 of the speakers are test speakers, and the names do not tell which",
            fix=f"put {META} beside {folder}/, or say part=dev or part=test",
            rule="P1",
        )
    unknown = sorted({name for name in speakers if name not in meta})
    if unknown:
        raise DataError(
            f"{len(unknown)} speakers are not in {META}: {some(unknown)}",
            fix="use the file as it was published",
        )
    return [SPLITS[meta[name][1]] for name in speakers]


def _meta(root: Path) -> dict[str, tuple[str, str]]:
    """Speaker -> (gender, ``dev`` or ``test``); the table pads its cells and mixes separators."""
    path = root / META
    if not path.is_file():
        return {}
    rows = [
        [cell.strip() for cell in re.split(r"[,\t]", line)]
        for line in path.read_text(encoding="utf-8-sig").splitlines()
        if line.strip()
    ]
    columns = ("VoxCeleb2 ID", "Gender", "Set")
    header = rows[0] if rows else []
    if any(name not in header for name in columns) or any(len(r) != len(header) for r in rows):
        raise DataError(
            f"{path} is not the published table (columns {', '.join(columns)})",
            fix="use the file as it was published",
        )
    speaker, word, part = (header.index(name) for name in columns)
    bad = sorted({row[part] for row in rows[1:] if row[part] not in SPLITS})
    if bad:
        raise DataError(f"{path}: unknown sets {some(bad)}", fix="the sets are dev and test")
    return {row[speaker]: (gender(row[word]), row[part]) for row in rows[1:]}
