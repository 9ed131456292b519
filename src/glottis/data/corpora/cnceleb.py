"""CN-Celeb: Chinese celebrities in many genres (singing, interview, drama, ...).

Fan et al., "CN-Celeb: a challenging Chinese speaker recognition dataset", ICASSP 2020; Li et al.,
"CN-Celeb: multi-genre speaker recognition", 2022.  CN-Celeb1 about 274 hours, 997 speakers (797
for training, 200 for test); CN-Celeb2 about 1,090 hours, 1,996 speakers; 16 kHz FLAC.
Licence: CC-BY-SA-4.0.
Layout of CN-Celeb1: ``data/id00000/singing-01-002.flac`` (genre - session - utterance),
``dev/dev.lst`` (training speakers), ``eval/enroll``, ``eval/test`` and ``eval/lists`` with
``enroll.lst`` and ``trials.lst``.  The shipped lists decide who is a test speaker; ``data/`` also
holds the test speakers, whose clips there repeat the test set and are left out.
The lists spell files ``.wav`` where the package holds ``.flac``: both are looked for.
Utterances are called as in the lists: ``id00800-enroll`` and ``test/id00800-singing-01-001.wav``.
Layout of CN-Celeb2 (``version=2``): ``data/id10000/*.flac``, all for training.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from glottis.data._files import some
from glottis.data._lines import read_lines
from glottis.data.corpora._layout import (
    add_trials,
    audio_files,
    components,
    existing,
    without_suffix,
)
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus
from glottis.errors import DataError

NAME = "CN-Celeb"
SPEAKER = re.compile(r"id\d{5}")
CLIP = re.compile(r"([a-z_]+)-(\d+)-(\d+)\.(flac|wav)")
ENROLMENT = re.compile(r"(id\d{5})-enroll")
TEST = re.compile(r"test/(id\d{5})-([a-z_]+)-(\d+)-(\d+)\.(flac|wav)")
SUFFIXES = (".flac", ".wav")
LISTS = ("eval/lists/enroll.lst", "eval/lists/trials.lst")
LICENCE = "CC-BY-SA-4.0"


class CnCelebConfig(CorpusConfig):
    """Options of the CN-Celeb reader."""

    version: Literal[1, 2] = 1
    """CN-Celeb1 (with the test set) or CN-Celeb2 (training only)."""


@register_corpus("cnceleb", CnCelebConfig)
def prepare(root: Path, config: CnCelebConfig) -> Prepared:
    """Chinese celebrities in eleven genres, with enrolment and test lists."""
    reading = Reading(f"{NAME}{config.version}", root)
    existing(root, ("data",), reading.corpus)
    testers: set[str] = set()
    if config.version == 1:
        existing(root, LISTS[:1], reading.corpus)
        existing(root, LISTS[1:], reading.corpus)
        testers = _add_evaluation(reading)
    published = 797 if config.version == 1 else 1_996
    reading.count("training speakers", _add_training(reading, testers), published)
    if config.version == 1:
        reading.count("test speakers", len(testers), 200)
        add_trials(reading, {"test": (LISTS[1], None)})
    reading.count_splits()
    return reading.finish(config)


def _add_training(reading: Reading, testers: set[str]) -> int:
    """Clips of ``data/`` that are not of test speakers; the number of their speakers."""
    paths = audio_files(reading.root, "data", SUFFIXES)
    inside = [path[len("data/") :] for path in paths]
    allowed = {"speaker": SPEAKER, "file": CLIP}
    parts = components(inside, ("speaker", "file"), allowed, NAME)
    listed = _development(reading, testers)
    kept = [
        (path, speaker, name)
        for path, speaker, name in zip(paths, parts["speaker"], parts["file"], strict=True)
        if speaker not in testers and (listed is None or speaker in listed)
    ]
    left_out = len(paths) - len(kept)
    if left_out:
        reading.notes.append(
            f"{left_out} clips under data/ are of test speakers or of nobody in dev/dev.lst; "
            "they are left out"
        )
    speakers = [speaker for _, speaker, _ in kept]
    names = [without_suffix(name) for _, _, name in kept]
    reading.add(
        len(kept),
        utterance=[f"{s}/{n}" for s, n in zip(speakers, names, strict=True)],
        path=[path for path, _, _ in kept],
        speaker=speakers,
        session=[f"{s}/{n.rsplit('-', 1)[0]}" for s, n in zip(speakers, names, strict=True)],
        split="train",
        language="zh",
        source=reading.corpus,
        licence=LICENCE,
        genre=[name.split("-", 1)[0] for name in names],
    )
    if listed is not None:
        absent = sorted(listed - set(speakers))
        reading.missing += [f"data/{name}" for name in absent]
    return len(set(speakers))


def _development(reading: Reading, testers: set[str]) -> set[str] | None:
    """Training speakers by ``dev/dev.lst``, None if that list is not there."""
    path = reading.root / "dev/dev.lst"
    if not path.is_file():
        return None
    names = set(read_lines(path, "speaker list", (1,)).columns[0].to_pylist())
    both = sorted(names & testers)
    if both:
        raise DataError(
            f"{len(both)} speakers are in dev/dev.lst and in the test lists: {some(both)}",
            why="test voices would be trained on",
            fix="use the lists as they were published",
            rule="P1",
        )
    return names


def _add_evaluation(reading: Reading) -> set[str]:
    """The enrolment and test clips of the shipped lists; the test speakers."""
    enrol = read_lines(reading.root / LISTS[0], "enrolment list", (2,))
    names = enrol.columns[0].to_pylist()
    speakers = [_match(ENROLMENT, name, LISTS[0]).group(1) for name in names]
    reading.add(
        len(names),
        utterance=names,
        path=[_on_disk(reading.root, f"eval/{path}") for path in enrol.columns[1].to_pylist()],
        speaker=speakers,
        session=names,  # an enrolment joins several recordings: a session of its own
        split="test",
        language="zh",
        source=reading.corpus,
        licence=LICENCE,
        genre="",
    )
    tests = read_lines(reading.root / LISTS[1], "trial list", (3,)).columns[1].unique().to_pylist()
    found = [_match(TEST, name, LISTS[1]) for name in tests]
    reading.add(
        len(tests),
        utterance=tests,
        path=[_on_disk(reading.root, f"eval/{name}") for name in tests],
        speaker=[match.group(1) for match in found],
        session=[f"{match.group(1)}/{match.group(2)}-{match.group(3)}" for match in found],
        split="test",
        language="zh",
        source=reading.corpus,
        licence=LICENCE,
        genre=[match.group(2) for match in found],
    )
    return {*speakers, *(match.group(1) for match in found)}


def _match(pattern: re.Pattern[str], name: str, path: str) -> re.Match[str]:
    match = pattern.fullmatch(name)
    if match is None:
        raise DataError(
            f"{path}: '{name}' is not of the form {pattern.pattern}",
            fix="use the lists as they were published",
            rule="P16",
        )
    return match


def _on_disk(root: Path, path: str) -> str:
    """The listed file, or the same name with the other suffix if only that one is there."""
    if not (root / path).exists():
        stem = without_suffix(path)
        for suffix in SUFFIXES:
            if (root / f"{stem}{suffix}").exists():
                return f"{stem}{suffix}"
    return path
