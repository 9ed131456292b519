"""SceneFake: real speech whose acoustic scene was replaced by speech enhancement and mixing.

Yi et al., "SceneFake: an initial dataset and benchmarks for scene fake audio detection", Pattern
Recognition 2024.  Built from ASVspoof 2019 LA and scene recordings; 16 kHz WAV, English.
Licence: see the record of the publisher.
Layout: ``{train,dev,eval}/{real,fake}/*.wav``.  This is the layout of the copies in circulation,
seen in the code of several of their users; the publisher's own package, its counts, and where its
"seen" and "unseen" test sets lie were not available to check.  Files may lie deeper below the label
folder.  The label is the folder at its place below the set and nothing else; ``eval`` is split
``test``.  Speakers are not known.
"""

from __future__ import annotations

from pathlib import Path

from glottis.data.corpora._asvspoof import count_labels
from glottis.data.corpora._layout import audio_files, components, existing, without_suffix
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus
from glottis.data.labels import canonical_labels

NAME = "SceneFake"
SPLITS = {"train": "train", "dev": "dev", "eval": "test"}
LABELS = ("real", "fake")


class SceneFakeConfig(CorpusConfig):
    """Options of the SceneFake reader."""


@register_corpus("scenefake", SceneFakeConfig)
def prepare(root: Path, config: SceneFakeConfig) -> Prepared:
    """Real speech moved into another acoustic scene; labels by folder."""
    reading = Reading(NAME, root)
    for folder in existing(root, tuple(SPLITS), NAME):
        paths = audio_files(root, folder)
        inside = [path[len(folder) + 1 :] for path in paths]
        allowed = {"label": LABELS}
        parts = components(inside, ("label", "file"), allowed, f"{NAME} {folder}", deeper=True)
        reading.add(
            len(paths),
            utterance=[without_suffix(path) for path in paths],
            path=paths,
            split=SPLITS[folder],
            label=canonical_labels(parts["label"], source=NAME).to_pylist(),
            language="en",
            source=NAME,
            licence="see the publisher's record",
        )
    count_labels(reading, {})
    reading.notes.append("speakers are not published: P1 cannot be checked on this corpus")
    return reading.finish(config)
