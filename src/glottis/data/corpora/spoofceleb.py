"""SpoofCeleb: VoxCeleb1 recordings and 23 synthesis systems trained on them.

Jung et al., "SpoofCeleb: speech deepfake detection and SASV in the wild", 2024.  2.5 million
utterances, 1,251 speakers, 16 kHz FLAC.  Licence: see the publisher's record (the recordings are
VoxCeleb1's).
Layout: ``metadata/{train,development,evaluation}.csv`` (``file,speaker,attack``) and
``flac/{train,development,evaluation}/FILE``, for example
``flac/train/a00/id11178/LAHad7VLKXw-00007-001.flac``.  Attack ``a00`` is bona fide, ``a01`` to
``a23`` are spoofs; ``evaluation`` is split ``test``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from glottis.data._files import some
from glottis.data.corpora._asvspoof import count_labels
from glottis.data.corpora._layout import existing, read_table, without_suffix
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus
from glottis.data.labels import BONAFIDE, SPOOF
from glottis.errors import DataError

NAME = "SpoofCeleb"
SETS = {"train": "train", "dev": "development", "test": "evaluation"}
PUBLISHED = {"train": 2_540_421, "dev": 55_741}
BONAFIDE_ATTACK = "a00"
ATTACKS = frozenset(f"a{number:02d}" for number in range(24))
USUAL = {
    "train": frozenset(f"a{n:02d}" for n in range(11)),
    "dev": frozenset(f"a{n:02d}" for n in (0, 6, 7, 11, 12, 13, 14)),
    "test": frozenset(f"a{n:02d}" for n in (0, *range(15, 24))),
}


class SpoofCelebConfig(CorpusConfig):
    """Options of the SpoofCeleb reader."""

    splits: tuple[Literal["train", "dev", "test"], ...] = ("train", "dev", "test")
    """The parts to read; all of these must be there."""


@register_corpus("spoofceleb", SpoofCelebConfig)
def prepare(root: Path, config: SpoofCelebConfig) -> Prepared:
    """VoxCeleb1 voices and 23 synthesis systems; noisy real-world conditions."""
    if (root / "spoofceleb").is_dir():
        root = root / "spoofceleb"
    reading = Reading(NAME, root)
    existing(root, ("metadata",), NAME)
    for split in config.splits:
        name = SETS[split]
        path = existing(root, (f"metadata/{name}.csv",), NAME)[0]
        table = read_table(root / path, ",", ("file", "speaker", "attack"))
        files, attack = table["file"].tolist(), table["attack"]
        _check_attacks(reading, set(attack.tolist()), split, path)
        bonafide = attack == BONAFIDE_ATTACK
        reading.add(
            len(files),
            utterance=[f"{name}/{without_suffix(file)}" for file in files],
            path=[f"flac/{name}/{file}" for file in files],
            speaker=table["speaker"],
            split=split,
            label=np.where(bonafide, BONAFIDE, SPOOF),
            attack=np.where(bonafide, "", attack),
            source=NAME,
            licence="see the publisher's record",
        )
    reading.count_splits(PUBLISHED)
    count_labels(reading, {})
    return reading.finish(config)


def _check_attacks(reading: Reading, found: set[str], split: str, path: str) -> None:
    unknown = sorted(found - ATTACKS)
    if unknown:
        raise DataError(
            f"{reading.root / path}: unknown attacks {some(unknown)}",
            why="an attack that is not known is neither bona fide nor spoof",
            fix="the published attacks are a00 (bona fide) to a23",
            rule="P16",
        )
    unusual = sorted(found - USUAL[split])
    if unusual:
        reading.notes.append(f"{path} holds attacks of other sets: {some(unusual)}")
