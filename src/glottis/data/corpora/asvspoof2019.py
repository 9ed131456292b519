"""ASVspoof 2019: logical access (LA: synthesis, conversion) and physical access (PA: replay).

Wang et al., "ASVspoof 2019: a large-scale public database", CSL 2020.  English (VCTK), 16 kHz FLAC;
LA 121,461 and PA 218,430 utterances, speakers disjoint between the sets.  Licence: ODC-By-1.0.
Layout of LA (PA alike): ``ASVspoof2019_LA_{train,dev,eval}/flac/LA_T_1138215.flac`` and
``ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.{train.trn,dev.trl,eval.trl}.txt`` with lines
``LA_0079 LA_T_1138215 - - bonafide``.  The set ``eval`` is split ``test`` here.
The audio folders of dev and eval also hold enrolment files for speaker verification, which no
countermeasure protocol names; they are counted and left out.
Official protocols: dev for selection, eval for the report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from glottis.data.corpora._asvspoof import add_protocol, count_labels, first_of, read_protocol
from glottis.data.corpora._layout import existing
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus

SETS = {"train": ("train", "trn"), "dev": ("dev", "trl"), "test": ("eval", "trl")}
PUBLISHED = {
    "LA": {"train": (2_580, 22_800), "dev": (2_548, 22_296), "test": (7_355, 63_882)},
    "PA": {"train": (5_400, 48_600), "dev": (5_400, 24_300), "test": (18_090, 116_640)},
}
EXTRA = {("LA", "dev"): 142, ("LA", "test"): 696}
LICENCE = "ODC-By-1.0"


class Asvspoof2019Config(CorpusConfig):
    """Options of the ASVspoof 2019 reader."""

    access: Literal["LA", "PA"] = "LA"
    """Logical access (synthesis and conversion) or physical access (replay)."""
    splits: tuple[Literal["train", "dev", "test"], ...] = ("train", "dev", "test")
    """The parts to read; all of these must be there."""


@register_corpus("asvspoof2019", Asvspoof2019Config)
def prepare(root: Path, config: Asvspoof2019Config) -> Prepared:
    """Synthesis and conversion (LA) or replay (PA) with 19 or 9 attacks; the classic protocol."""
    access = config.access
    if (root / access).is_dir():  # the archives unpack to LA/ and PA/
        root = root / access
    reading = Reading(f"ASVspoof2019 {access}", root)
    lists = f"ASVspoof2019_{access}_cm_protocols"
    existing(root, (lists,), reading.corpus)
    for split in config.splits:
        name, kind = SETS[split]
        path = f"{lists}/ASVspoof2019.{access}.cm.{name}.{kind}.txt"
        protocol = read_protocol(
            root, first_of(root, (path,), f"the {name} protocol"), "asvspoof2019"
        )
        folder = f"ASVspoof2019_{access}_{name}/flac"
        existing(root, (folder,), reading.corpus)
        add_protocol(
            reading,
            protocol,
            (folder,),
            licence=LICENCE,
            extra_files="enrolment of speaker verification",
            published_extra=EXTRA.get((access, split)),
            split=split,
            language="en",
            **protocol.conditions,
        )
        reading.trials[split] = root / path
    count_labels(reading, PUBLISHED[access])
    return reading.finish(config)
