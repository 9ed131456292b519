"""LibriSpeech: audio books, read English.

Panayotov, Chen, Povey, Khudanpur, "Librispeech: an ASR corpus based on public domain audio books",
ICASSP 2015.  About 982 hours, 2,484 speakers, 16 kHz FLAC.  Licence: CC-BY-4.0.
Layout: ``train-clean-100/103/1240/103-1240-0000.flac`` (subset / speaker / chapter / utterance)
with ``SPEAKERS.TXT``.  The chapter is the session (another recording, usually the same room).
No official verification trials: build them.
"""

from __future__ import annotations

import re
from pathlib import Path

from glottis.data._files import some
from glottis.data.corpora._layout import audio_files, components, existing, gender, without_suffix
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus
from glottis.errors import DataError

NAME = "LibriSpeech"
# subset -> split, published utterances, published speakers
SUBSETS = {
    "train-clean-100": ("train", 28_539, 251),
    "train-clean-360": ("train", 104_014, 921),
    "train-other-500": ("train", 148_688, 1_166),
    "dev-clean": ("dev", 2_703, 40),
    "dev-other": ("dev", 2_864, 33),
    "test-clean": ("test", 2_620, 40),
    "test-other": ("test", 2_939, 33),
}
NUMBER = re.compile(r"\d+")
FILE = re.compile(r"(\d+)-(\d+)-\d+\.(flac|wav)")


class LibriSpeechConfig(CorpusConfig):
    """Options of the LibriSpeech reader."""


@register_corpus("librispeech", LibriSpeechConfig)
def prepare(root: Path, config: LibriSpeechConfig) -> Prepared:
    """Read English from audio books, 2,484 speakers; chapters as sessions."""
    if (root / NAME).is_dir():  # the archives unpack to a folder of this name
        root = root / NAME
    reading = Reading(NAME, root)
    subsets = existing(root, tuple(SUBSETS), NAME)
    genders = _genders(root, reading)
    for subset in subsets:
        split, clips, speakers = SUBSETS[subset]
        paths = audio_files(root, subset, (".flac", ".wav"))
        inside = [path[len(subset) + 1 :] for path in paths]
        allowed = {"speaker": NUMBER, "chapter": NUMBER, "file": FILE}
        parts = components(inside, ("speaker", "chapter", "file"), allowed, NAME)
        _check_names(inside)
        reading.add(
            len(paths),
            utterance=[without_suffix(name) for name in parts["file"]],
            path=paths,
            speaker=parts["speaker"],
            session=[f"{s}-{c}" for s, c in zip(parts["speaker"], parts["chapter"], strict=True)],
            split=split,
            gender=[genders.get(name, "") for name in parts["speaker"]],
            language="en",
            source=f"{NAME} {subset}",
            licence="CC-BY-4.0",
            subset=subset,
        )
        reading.count(f"{subset} clips", len(paths), clips)
        reading.count(f"{subset} speakers", len(set(parts["speaker"])), speakers)
    return reading.finish(config)


def _check_names(paths: list[str]) -> None:
    """A file repeats its speaker and chapter in its name; another one was moved."""
    wrong = []
    for path in paths:
        speaker, chapter, name = path.split("/")
        if not name.startswith(f"{speaker}-{chapter}-"):
            wrong.append(path)
    if wrong:
        raise DataError(
            f"{NAME}: {len(wrong)} files lie in the folder of another speaker: {some(wrong, 5)}",
            fix="restore the published layout",
            rule="P16",
        )


def _genders(root: Path, reading: Reading) -> dict[str, str]:
    """Speaker -> gender from ``id | sex | subset | minutes | name`` (comments start with ;)."""
    path = root / "SPEAKERS.TXT"
    if not path.is_file():
        reading.notes.append("no SPEAKERS.TXT: genders are not known")
        return {}
    table = {}
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if line.strip() and not line.startswith(";"):
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) < 3 or not gender(cells[1]):
                raise DataError(f"{path}: not 'id | sex | subset | minutes | name': '{line}'")
            table[cells[0]] = gender(cells[1])
    return table
