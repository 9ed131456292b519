"""ASVspoof 2021: evaluation sets through telephone lines (LA), media codecs (DF), rooms (PA).

Liu et al., "ASVspoof 2021: towards spoofed and deepfake speech detection in the wild", TASLP 2023.
LA 181,566, DF 611,829 and PA 943,110 utterances, 16 kHz FLAC.  Licence: ODC-By-1.0.
For testing only: train on ASVspoof 2019.
Layout: ``ASVspoof2021_DF_eval/flac/DF_E_2000011.flac`` (also ``ASVspoof2021_DF_eval_part00/`` to
``part09/`` with that folder inside) and the keys, a download of their own:
``keys/DF/CM/trial_metadata.txt``, also under ``DF-keys-full/``.  The list inside the audio package
(``ASVspoof2021.DF.cm.eval.trl.txt``) has no labels.
The column ``subset`` becomes the split: ``eval`` -> test (the official figures), ``progress``, and
``hidden`` (silence trimmed); codec or room are kept as columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from glottis.data.corpora._asvspoof import add_protocol, count_labels, first_of, read_protocol
from glottis.data.corpora._layout import existing
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus
from glottis.errors import DataError

PUBLISHED = {"LA": 181_566, "DF": 611_829, "PA": 943_110}
SPLITS = {"eval": "test", "progress": "progress", "hidden": "hidden"}
LICENCE = "ODC-By-1.0"


class Asvspoof2021Config(CorpusConfig):
    """Options of the ASVspoof 2021 reader."""

    track: Literal["LA", "DF", "PA"] = "LA"
    """Telephone (LA), media codecs (DF) or replay in rooms (PA)."""


@register_corpus("asvspoof2021", Asvspoof2021Config)
def prepare(root: Path, config: Asvspoof2021Config) -> Prepared:
    """Evaluation sets of 2021: coded and transmitted spoofs (LA), deepfakes (DF), replay (PA)."""
    track = config.track
    reading = Reading(f"ASVspoof2021 {track}", root)
    folders = _audio_folders(root, track, reading.corpus)
    keys = f"keys/{track}/CM/trial_metadata.txt"
    places = (keys, f"{track}-keys-full/{keys}", f"{track}-keys-stage-1/{keys}")
    if not any((root / place).is_file() for place in places):
        raise DataError(
            f"{root}: the keys of ASVspoof2021 {track} are missing; looked for {', '.join(places)}",
            why="the list inside the audio package has no labels",
            fix=f"download {track}-keys-full and unpack it beside the audio",
        )
    path = first_of(root, places, "the key file")
    protocol = read_protocol(root, path, f"asvspoof2021_{track.lower()}")
    conditions: dict[str, Any] = dict(protocol.conditions)
    subset = conditions.get("subset")
    unknown = sorted(set(subset.tolist()) - set(SPLITS)) if subset is not None else ["(none)"]
    if unknown:
        raise DataError(
            f"{root / path}: unknown subsets {', '.join(unknown)}",
            fix=f"the published subsets are {', '.join(SPLITS)}",
        )
    if "source" in conditions:
        conditions["source"] = np.array(
            [f"{reading.corpus} {name}" for name in conditions["source"]], dtype=object
        )
    if "codec" in conditions:
        conditions["channel"] = conditions.pop("codec")
    add_protocol(
        reading,
        protocol,
        folders,
        licence=LICENCE,
        extra_files="enrolment of speaker verification",
        split=np.array([SPLITS[name] for name in conditions["subset"]], dtype=object),
        **conditions,
    )
    reading.trials["test"] = root / path
    count_labels(reading, {})
    reading.count("clips", len(protocol), PUBLISHED[track])
    return reading.finish(config)


def _audio_folders(root: Path, track: str, corpus: str) -> tuple[str, ...]:
    """The folders of audio, whole or in numbered parts."""
    inner = f"ASVspoof2021_{track}_eval/flac"
    parts = [f"ASVspoof2021_{track}_eval_part{number:02d}/{inner}" for number in range(10)]
    return tuple(existing(root, (inner, f"ASVspoof2021_{track}_eval/{inner}", *parts), corpus))
