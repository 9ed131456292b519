"""Any table of clips (CSV, TSV or another separator), by saying which column is what.

    glottis prepare table SRC DST file=clips.csv 'columns={path: wav, speaker: who, label: kind}'

Columns that are not named are kept under their own name, unless ``keep_extra=false``.  Labels go
through the table of known words; 0 and 1 need ``polarity``.  Paths are relative to the folder SRC;
``folder`` is put before each of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import Field

from glottis.data.corpora._asvspoof import count_labels
from glottis.data.corpora._layout import existing, read_table, without_suffix
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus
from glottis.data.labels import Polarity, canonical_labels
from glottis.data.manifest_check import COLUMNS, TEXT, tidy_paths
from glottis.errors import DataError


class TableConfig(CorpusConfig):
    """Where the table is and what its columns are."""

    file: str
    """The table, relative to the folder of the corpus."""
    columns: dict[str, str] = Field(default_factory=lambda: {"path": "path"})
    """Our column -> the table's; ``path`` is needed, ``utterance`` is the path without suffix."""
    constants: dict[str, str] = Field(default_factory=dict)
    """Our column -> one value for all clips, for example a licence."""
    delimiter: str = Field("auto", min_length=1)
    """What separates cells: one character, ``tab``, or ``auto`` (tab for .tsv, else comma)."""
    quotes: bool = True
    """A double quote encloses a cell; with false it is an ordinary character."""
    folder: str = ""
    """Folder (relative to the corpus) that the paths of the table start from."""
    polarity: Polarity | None = None
    """What the label 1 means."""
    keep_extra: bool = True
    """Keep the columns that are not named."""


@register_corpus("table", TableConfig)
def prepare(root: Path, config: TableConfig) -> Prepared:
    """Your own list of clips, with a mapping of its columns."""
    _check_names(config)
    existing(root, (config.file,), f"a folder with the table {config.file}")
    path = root / config.file
    delimiters = {"auto": "\t" if path.suffix == ".tsv" else ",", "tab": "\t"}
    delimiter = delimiters.get(config.delimiter, config.delimiter)
    if len(delimiter) != 1:
        raise DataError(f"delimiter '{config.delimiter}' is not one character", fix="or say tab")
    table = read_table(path, delimiter, list(config.columns.values()), quoting=config.quotes)
    columns = {name: table[theirs] for name, theirs in config.columns.items()}
    if config.keep_extra:
        used = {*config.columns.values(), *columns, *config.constants}
        columns |= {name: values for name, values in table.items() if name not in used}
    count = len(columns["path"])
    columns |= {
        name: np.full(count, value, dtype=object) for name, value in config.constants.items()
    }
    before = f"{config.folder.strip('/')}/" if config.folder.strip("/") else ""
    tidied = tidy_paths(pa.array(columns["path"], TEXT)).to_pylist()
    columns["path"] = np.array([before + name for name in tidied], dtype=object)
    if "utterance" not in columns:
        columns["utterance"] = np.array([without_suffix(n) for n in columns["path"]], dtype=object)
    if "label" in columns:
        labels = canonical_labels(columns["label"], polarity=config.polarity, source=str(path))
        columns["label"] = np.array(labels.to_pylist(), dtype=object)
    reading = Reading(config.file, root)
    reading.add(count, **columns)
    reading.count("clips", count)
    if "label" in columns:
        reading.columns.setdefault("split", [""] * count)
        count_labels(reading, {})
    return reading.finish(config)


def _check_names(config: TableConfig) -> None:
    """Our side of the mapping must be columns that we know."""
    unknown = [name for name in (*config.columns, *config.constants) if name not in COLUMNS]
    if unknown:
        raise DataError(
            f"there is no manifest column {', '.join(unknown)}",
            fix=f"known: {', '.join(COLUMNS)}; other columns of the table are kept anyway",
        )
    if "path" not in config.columns:
        raise DataError("the mapping does not say which column is the path", fix="add path: NAME")
    both = sorted(set(config.columns) & set(config.constants))
    if both:
        raise DataError(f"{', '.join(both)} is mapped and constant", fix="keep one of the two")
