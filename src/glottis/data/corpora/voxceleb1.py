"""VoxCeleb1: interviews of celebrities, cut from videos.

Nagrani, Chung, Zisserman, "VoxCeleb: a large-scale speaker identification dataset", 2017.
352 hours, 1,251 speakers, 153,516 utterances, 16 kHz WAV, mostly English.
Licence: CC-BY-4.0 for the lists; the videos belong to their owners.
Layout: ``wav/id10001/1zcIwhmdeo4/00001.wav`` (speaker / video / segment); the development and the
test archive unpack to the same folder, ``dev/wav`` and ``test/wav`` are accepted too.
Split ``test`` is the 40 speakers id10270-id10309, everybody else is ``train``.
Official trials, beside ``wav``: ``veri_test2.txt`` (O, cleaned), ``list_test_all2.txt`` (E),
``list_test_hard2.txt`` (H); E and H use the training speakers too, so they are for models trained
on VoxCeleb2.  An utterance is called as in these lists: ``id10001/1zcIwhmdeo4/00001.wav``.
"""

from __future__ import annotations

import re
from pathlib import Path

from glottis.data.corpora._layout import (
    add_trials,
    audio_files,
    components,
    existing,
    gender,
    read_table,
    without_suffix,
)
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus
from glottis.errors import DataError

NAME = "VoxCeleb1"
FOLDERS = ("wav", "dev/wav", "test/wav", "vox1_dev_wav/wav", "vox1_test_wav/wav")
META = "vox1_meta.csv"
TEST_SPEAKERS = frozenset(f"id{number}" for number in range(10270, 10310))
SPEAKER = re.compile(r"id1\d{4}")
TRIALS: dict[str, tuple[str, int | None]] = {
    "o": ("veri_test2.txt", 37_611),
    "e": ("list_test_all2.txt", 579_818),
    "h": ("list_test_hard2.txt", 550_894),
    "o_original": ("veri_test.txt", 37_720),
}


class VoxCeleb1Config(CorpusConfig):
    """Options of the VoxCeleb1 reader."""


@register_corpus("voxceleb1", VoxCeleb1Config)
def prepare(root: Path, config: VoxCeleb1Config) -> Prepared:
    """Interviews of 1,251 celebrities; the usual test bench (trials O, E, H)."""
    reading = Reading(NAME, root)
    genders = _genders(root, reading)
    for folder in existing(root, FOLDERS, NAME):
        paths = audio_files(root, folder, (".wav", ".flac"))
        inside = [path[len(folder) + 1 :] for path in paths]
        parts = components(inside, ("speaker", "video", "file"), {"speaker": SPEAKER}, NAME)
        reading.add(
            len(paths),
            utterance=[f"{without_suffix(path)}.wav" for path in inside],
            path=paths,
            speaker=parts["speaker"],
            session=parts["video"],
            split=["test" if name in TEST_SPEAKERS else "train" for name in parts["speaker"]],
            gender=[genders.get(name, "") for name in parts["speaker"]],
            source=NAME,
            licence="CC-BY-4.0 (lists; the videos belong to their owners)",
        )
    reading.count_splits({"train": 148_642, "test": 4_874})
    reading.count("speakers", len(set(reading.columns.get("speaker", []))), 1_251)
    add_trials(reading, TRIALS)
    return reading.finish(config)


def _genders(root: Path, reading: Reading) -> dict[str, str]:
    """Speaker -> gender from the publisher's table, which must agree with the split."""
    if not (root / META).is_file():
        reading.notes.append(f"no {META} beside wav: genders are not known")
        return {}
    columns = ("VoxCeleb1 ID", "Gender", "Set")
    table = read_table(root / META, "\t", columns)
    speakers, genders, sets = (table[name] for name in columns)
    wrong = [
        s
        for s, part in zip(speakers, sets, strict=True)
        if (part == "test") != (s in TEST_SPEAKERS)
    ]
    if wrong:
        raise DataError(
            f"{root / META}: {len(wrong)} speakers are in another set than published: {wrong[:5]}",
            why="the test speakers of VoxCeleb1 are id10270-id10309",
            fix="use the file as it was published",
            rule="P1",
        )
    return {name: gender(word) for name, word in zip(speakers, genders, strict=True)}
