"""In-the-Wild: real and faked speech of celebrities and politicians, collected from the web.

Müller et al., "Does audio deepfake detection generalize?", Interspeech 2022.  37.9 hours (20.7
real, 17.2 fake), 58 speakers, 31,779 clips (19,963 bona fide), English, 16 kHz WAV.
Licence: CC-BY-SA-4.0 as distributed by its authors.
Layout: ``meta.csv`` (``file,speaker,label``; labels ``bona-fide`` and ``spoof``) beside ``0.wav``,
``1.wav``, ...; also inside ``release_in_the_wild/``.  For testing only: split ``test``.
"""

from __future__ import annotations

from pathlib import Path

from glottis.data.corpora._asvspoof import count_labels
from glottis.data.corpora._layout import existing, read_table, without_suffix
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus
from glottis.data.labels import canonical_labels

NAME = "In-the-Wild"


class InTheWildConfig(CorpusConfig):
    """Options of the In-the-Wild reader."""


@register_corpus("inthewild", InTheWildConfig)
def prepare(root: Path, config: InTheWildConfig) -> Prepared:
    """Deepfakes of 58 public figures from the web; the usual test of generalisation."""
    folder = existing(root, ("meta.csv", "release_in_the_wild/meta.csv"), NAME)[0]
    place = folder.removesuffix("meta.csv")
    table = read_table(root / folder, ",", ("file", "speaker", "label"))
    files = table["file"].tolist()
    reading = Reading(NAME, root)
    reading.add(
        len(files),
        utterance=[without_suffix(name) for name in files],
        path=[f"{place}{name}" for name in files],
        speaker=table["speaker"],
        split="test",
        label=canonical_labels(table["label"], source=f"{root / folder}").to_pylist(),
        language="en",
        source=NAME,
        licence="CC-BY-SA-4.0",
    )
    reading.count("clips", len(files), 31_779)
    count_labels(reading, {"test": (19_963, 31_779 - 19_963)})
    return reading.finish(config)
