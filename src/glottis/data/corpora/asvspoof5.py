"""ASVspoof 5: crowdsourced speech, attacks tuned against surrogate detectors, codecs.

Wang et al., "ASVspoof 5: design, collection and validation of resources for spoofing, deepfake, and
adversarial attack detection using crowdsourced speech", 2025.  English (Multilingual LibriSpeech),
about 2,000 speakers, 32 attacks, 16 kHz FLAC; 182,357 / 140,950 / 680,774 utterances of track 1.
Licence: see LICENSE.txt of the package.
Layout: ``flac_T``, ``flac_D``, ``flac_E_eval`` and, beside them or in ``ASVspoof5_protocols``,
``ASVspoof5.train.tsv``, ``ASVspoof5.dev.track_1.tsv``, ``ASVspoof5.eval.track_1.tsv``: ten columns
separated by **spaces** despite the name, without a header.  The set ``eval`` is split ``test``.
The six-column ``.metadata.txt`` of the pre-release is refused.  The lists of track 2 (enrolment and
trials of spoofing-aware verification) are returned by path; their enrolment files are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from glottis.data.corpora._asvspoof import add_protocol, count_labels, first_of, read_protocol
from glottis.data.corpora._layout import existing, gender
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus

NAME = "ASVspoof5"
SETS = {
    "train": ("flac_T", "ASVspoof5.train.tsv", 182_357),
    "dev": ("flac_D", "ASVspoof5.dev.track_1.tsv", 140_950),
    "test": ("flac_E_eval", "ASVspoof5.eval.track_1.tsv", 680_774),
}
FOLDERS = ("", "ASVspoof5_protocols/", "protocols/")
LICENCE = "see LICENSE.txt of ASVspoof5"


class Asvspoof5Config(CorpusConfig):
    """Options of the ASVspoof 5 reader."""

    splits: tuple[Literal["train", "dev", "test"], ...] = ("train", "dev", "test")
    """The parts to read; all of these must be there."""


@register_corpus("asvspoof5", Asvspoof5Config)
def prepare(root: Path, config: Asvspoof5Config) -> Prepared:
    """Crowdsourced speech and 32 attacks, adversarial ones included; a million utterances."""
    reading = Reading(NAME, root)
    existing(root, tuple(folder for folder, _, _ in SETS.values()), NAME)
    for split in config.splits:
        folder, name, published = SETS[split]
        places = [f"{place}{name}" for place in FOLDERS]
        path = first_of(root, places, f"the {split} protocol")
        existing(root, (folder,), NAME)
        protocol = read_protocol(root, path, "asvspoof5")
        conditions: dict[str, Any] = dict(protocol.conditions)
        conditions["channel"] = conditions.pop("codec", "")
        genders = [gender(word) for word in conditions.pop("gender", [""] * len(protocol))]
        add_protocol(
            reading,
            protocol,
            (folder,),
            licence=LICENCE,
            extra_files="enrolment of track 2",
            split=split,
            language="en",
            gender=np.array(genders, dtype=object),
            **conditions,
        )
        reading.trials[split] = root / path
        reading.count(f"{split} clips", len(protocol), published)
        for kind in ("enroll", "trial"):  # train has no track 2: its name does not change
            second = path.replace("track_1.tsv", f"track_2.{kind}.tsv")
            if second != path and (root / second).is_file():
                reading.trials[f"{split}_track_2_{kind}"] = root / second
    count_labels(reading, {})
    return reading.finish(config)
