"""MLAAD: synthesis of many systems in many languages; spoofs only.

Müller et al., "MLAAD: the multi-language audio anti-spoofing dataset", 2024.  Grows with every
version, about 1,000 clips a system and language, so that no total is checked but every folder is.
Licence: CC-BY-NC-4.0 (not for commercial use).
Layout: ``fake/LANGUAGE/SYSTEM/meta.csv``, cells separated by ``|`` with a header; a quote is an
ordinary character there (the usual quoting rules silently drop rows).  A row's file is the one of
that name beside its ``meta.csv``.
There is no bona fide speech in it: join it with M-AILABS or another corpus of the languages.
"""

from __future__ import annotations

from pathlib import Path

from glottis.data._files import some
from glottis.data.corpora._layout import audio_files, existing, read_table, without_suffix
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus
from glottis.data.labels import SPOOF
from glottis.errors import DataError

NAME = "MLAAD"
KEPT = ("model_name", "architecture", "training_data")


class MlaadConfig(CorpusConfig):
    """Options of the MLAAD reader."""


@register_corpus("mlaad", MlaadConfig)
def prepare(root: Path, config: MlaadConfig) -> Prepared:
    """Spoofs of many synthesis systems in dozens of languages; no bona fide speech."""
    existing(root, ("fake",), NAME)
    reading = Reading(NAME, root)
    tables = sorted((root / "fake").glob("*/*/meta.csv"))
    if not tables:
        raise DataError(
            f"{root}: no fake/LANGUAGE/SYSTEM/meta.csv is there",
            fix="give the folder that holds fake/",
        )
    for table in tables:
        _add_system(reading, table)
    systems = {path.parent.name for path in tables}
    languages = {path.parent.parent.name for path in tables}
    for what, found in (("systems", systems), ("languages", languages)):
        reading.count(what, len(found))
    reading.count("clips", reading.num_rows)
    reading.notes.append("spoofs only: an EER needs bona fide speech of the same languages")
    return reading.finish(config)


def _add_system(reading: Reading, path: Path) -> None:
    language, system = path.parent.parent.name, path.parent.name
    folder = f"fake/{language}/{system}"
    table = read_table(path, "|", ("path",), quoting=False)
    files = [str(name).replace("\\", "/").rsplit("/", 1)[-1] for name in table["path"]]
    on_disk = audio_files(reading.root, folder)
    unlisted = sorted(set(on_disk) - {f"{folder}/{name}" for name in files})
    if unlisted:
        reading.notes.append(
            f"{len(unlisted)} files of {folder} are not in its meta.csv: {some(unlisted, 3)}"
        )
    reading.add(
        len(files),
        utterance=[f"{language}/{system}/{without_suffix(name)}" for name in files],
        path=[f"{folder}/{name}" for name in files],
        label=SPOOF,
        attack=system,
        language=language,
        source=NAME,
        licence="CC-BY-NC-4.0",
        **{name: table[name] for name in KEPT if name in table},
    )
