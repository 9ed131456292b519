"""What the readers of the ASVspoof corpora have in common: protocol rows to manifest rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glottis.data._files import some
from glottis.data.corpora._layout import audio_files, by_stem
from glottis.data.corpora._prepared import Reading
from glottis.data.protocol_check import require_protocol
from glottis.data.protocols import EvaluationProtocol
from glottis.errors import DataError

SUFFIXES = (".flac", ".wav")


def first_of(root: Path, candidates: Sequence[str], what: str) -> str:
    """The first candidate (relative to the root) that exists; an error names them all."""
    for name in candidates:
        if (root / name).exists():
            return name
    raise DataError(
        f"{root}: {what} is missing; looked for {', '.join(candidates)}",
        fix="give the folder that docs/corpora.md shows for this corpus",
    )


def read_protocol(root: Path, path: str, layout: str) -> EvaluationProtocol:
    """The protocol at a path relative to the root; it must have the layout that is expected."""
    protocol = EvaluationProtocol.read(root / path, layout)
    require_protocol(protocol)
    return protocol


def add_protocol(
    reading: Reading,
    protocol: EvaluationProtocol,
    folders: Sequence[str],
    *,
    licence: str,
    extra_files: str,
    split: str | np.ndarray,
    published_extra: int | None = None,
    **columns: np.ndarray | str,
) -> None:
    """Rows for every utterance of a protocol, with the file of that name from the folders.

    An utterance without a file keeps the path it should have, so that it is reported as missing.
    extra_files: what the files are that no protocol names; they are counted and left out.
    """
    found = [path for folder in folders for path in audio_files(reading.root, folder, SUFFIXES)]
    files = by_stem(found, reading.corpus)
    names = protocol.utterance.tolist()
    paths = [files.get(name, f"{folders[0]}/{name}.flac") for name in names]
    reading.add(
        len(names),
        utterance=names,
        path=paths,
        speaker=protocol.speaker,
        split=split,
        label=protocol.label,
        attack=protocol.attack,
        source=columns.pop("source", reading.corpus),
        licence=licence,
        **columns,
    )
    listed = set(names)
    extra = sorted(name for name in files if name not in listed)
    if extra:
        published = "" if published_extra is None else f" (published {published_extra})"
        reading.notes.append(
            f"{len(extra)} files in {', '.join(folders)} are not in the protocol{published}: "
            f"{extra_files}; left out: {some(extra, 3)}"
        )


def count_labels(reading: Reading, published: dict[str, tuple[int, int]]) -> None:
    """Note bona fide and spoof clips of each split; ``published``: split -> (bona fide, spoof)."""
    labels = np.array(reading.columns["label"], dtype=object)
    splits = np.array(reading.columns["split"], dtype=object)
    for name in dict.fromkeys(reading.columns["split"]):
        figures = published.get(name, (None, None))
        for label, figure in zip(("bonafide", "spoof"), figures, strict=True):
            found = int(np.sum((labels == label) & (splits == name)))
            reading.count(f"{name} {label}", found, figure)
