"""Fake-or-Real (FoR): utterances of open-source and commercial synthesis against real speech.

Reimao, Tzerpos, "FoR: a dataset for synthetic speech detection", SpeD 2019.  More than 198,000
utterances over four versions; sampling rates vary in ``original``.  Licence: not stated in the
package; ask the authors before other than research use.
Layout: ``for-norm/{training,validation,testing}/{real,fake}/*.wav``; the versions are
``for-original``, ``for-norm`` (level and rate), ``for-2sec`` (cut to 2 s) and ``for-rerec``
(re-recorded).  Mirrors repeat the folder (``for-2sec/for-2seconds/...``).  The label is the folder
directly above the file and nothing else.
Speakers are not known: whether a voice is in two sets cannot be checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from glottis.data.corpora._asvspoof import count_labels
from glottis.data.corpora._layout import audio_files, components, existing, without_suffix
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus
from glottis.data.labels import canonical_labels

NAME = "Fake-or-Real"
FOLDERS = {
    "original": ("for-original/for-original", "for-original"),
    "norm": ("for-norm/for-norm", "for-norm"),
    "2sec": ("for-2sec/for-2seconds", "for-2sec", "for-2seconds"),
    "rerec": ("for-rerec/for-rerecorded", "for-rerec", "for-rerecorded"),
}
SPLITS = {"training": "train", "validation": "dev", "testing": "test"}
LABELS = ("real", "fake")


class FakeOrRealConfig(CorpusConfig):
    """Options of the Fake-or-Real reader."""

    version: Literal["original", "norm", "2sec", "rerec"] = "norm"
    """As published, normalised, cut to two seconds, or re-recorded through a loudspeaker."""


@register_corpus("fakeorreal", FakeOrRealConfig)
def prepare(root: Path, config: FakeOrRealConfig) -> Prepared:
    """Synthetic against real speech in four versions; labels by folder."""
    reading = Reading(f"{NAME} {config.version}", root)
    folder = existing(root, FOLDERS[config.version], reading.corpus)[0]
    paths = audio_files(root, folder)
    inside = [path[len(folder) + 1 :] for path in paths]
    allowed = {"set": tuple(SPLITS), "label": LABELS}
    parts = components(inside, ("set", "label", "file"), allowed, reading.corpus)
    reading.add(
        len(paths),
        utterance=[without_suffix(path) for path in inside],
        path=paths,
        split=[SPLITS[name] for name in parts["set"]],
        label=canonical_labels(parts["label"], source=reading.corpus).to_pylist(),
        language="en",
        source=reading.corpus,
        licence="not stated",
    )
    count_labels(reading, {})
    reading.notes.append("speakers are not published: P1 cannot be checked on this corpus")
    return reading.finish(config)
