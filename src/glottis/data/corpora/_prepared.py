"""What a corpus reader returns, and the counts and files it vouches for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from glottis.config import Config
from glottis.data._files import file_sizes, some
from glottis.data.manifest import Manifest
from glottis.errors import AudioError, DataError

_PROBE_THREADS = 4


class CorpusConfig(Config):
    """Options of every corpus reader."""

    strict: bool = False
    """A count that differs from the published one, or a missing file, is an error."""
    probe_audio: bool = False
    """Read the header of every file for its duration and rate (minutes for a large corpus)."""


@dataclass(frozen=True)
class Count:
    """How many of something were found; ``published`` is the publisher's figure, if known."""

    what: str
    found: int
    published: int | None = None

    @property
    def differs(self) -> bool:
        """Another number than the publisher's."""
        return self.published is not None and self.found != self.published

    def text(self) -> str:
        """``train clips 25380 (published 25380)``."""
        published = "" if self.published is None else f" (published {self.published})"
        return f"{self.what} {self.found}{published}{' differs' if self.differs else ''}"


@dataclass(frozen=True)
class CountReport:
    """What was found in a corpus beside what is published.

    missing, empty: listed files that are not there, or hold no byte.  unusable: files whose header
    could not be read (with ``probe_audio`` only).  notes: what a user should know.
    """

    corpus: str
    counts: tuple[Count, ...]
    missing: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """All counts as published, all files there."""
        return not (self.missing or self.empty or any(count.differs for count in self.counts))

    def text(self) -> str:
        """Lines for people; the first ten files of each kind are named."""
        lines = [f"{self.corpus}: {count.text()}" for count in self.counts]
        for what, names in self._files().items():
            if names:
                lines.append(f"{self.corpus}: {len(names)} files {what}: {some(names)}")
        return "\n".join([*lines, *(f"{self.corpus}: {note}" for note in self.notes)])

    def as_tree(self) -> dict[str, Any]:
        """Plain data for ``--json`` and the run card."""
        return {
            "corpus": self.corpus,
            "counts": [vars(count) for count in self.counts],
            "missing": len(self.missing),
            "empty": len(self.empty),
            "unusable": len(self.unusable),
            "examples": {what: list(names[:10]) for what, names in self._files().items() if names},
            "notes": list(self.notes),
        }

    def raise_if_incomplete(self, root: Path) -> None:
        """A `DataError` with everything that differs."""
        if self.complete:
            return
        raise DataError(
            f"{root} is not the complete corpus\n{self.text()}",
            why="results on a part of a corpus do not compare with published ones",
            fix="complete it, or prepare it with strict=false",
            rule="P11",
        )

    def _files(self) -> dict[str, tuple[str, ...]]:
        return {
            "are missing": self.missing,
            "are empty": self.empty,
            "cannot be probed": self.unusable,
        }


@dataclass(frozen=True)
class Prepared:
    """A corpus that was read.

    root: the folder that the paths of the manifest start from (``data.root`` in a recipe).
    trials: the official trial lists and protocols that ship with it, by name.
    """

    root: Path
    manifest: Manifest
    trials: dict[str, Path]
    report: CountReport


@dataclass
class Reading:
    """Collects a reader's rows and findings; `finish` makes them `Prepared`."""

    corpus: str
    root: Path
    columns: dict[str, list[Any]] = field(default_factory=dict)
    counts: list[Count] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    trials: dict[str, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    num_rows: int = 0

    def add(self, count: int, **columns: Sequence[Any] | np.ndarray | str) -> None:
        """``count`` rows; a plain text is the same value for all of them."""
        for name in dict.fromkeys([*self.columns, *columns]):
            values = columns.get(name, "")
            filled = [values] * count if isinstance(values, str) else list(values)
            assert len(filled) == count, f"{name} has {len(filled)} of {count} values"
            self.columns.setdefault(name, [""] * self.num_rows).extend(filled)
        self.num_rows += count

    def count(self, what: str, found: int, published: int | None = None) -> None:
        """Note a number beside the publisher's."""
        self.counts.append(Count(what, found, published))

    def count_splits(self, published: Mapping[str, int] | None = None) -> None:
        """Note the clips of each split and in all."""
        splits = self.columns.get("split", [])
        for name in dict.fromkeys(splits):
            self.count(f"{name or 'clips'} clips", splits.count(name), (published or {}).get(name))

    def finish(self, config: CorpusConfig) -> Prepared:
        """Check the files, fill what was asked for, and say what was found."""
        if not self.num_rows:
            raise DataError(
                f"{self.root}: no clip of {self.corpus} was found",
                fix="give the folder that docs/corpora.md shows for this corpus",
            )
        kept = {name: values for name, values in self.columns.items() if _filled(name, values)}
        manifest = Manifest(pa.table(kept), f"{self.corpus} in {self.root}")
        paths = list(dict.fromkeys(manifest.column("path")))
        sizes = file_sizes(self.root, paths)
        if np.all(sizes < 0):
            raise DataError(
                f"{self.root}: none of the {len(paths)} listed files exists, "
                f"the first is {paths[0]}",
                fix="unpack the audio beside the lists",
                rule="P11",
            )
        unusable: tuple[str, ...] = ()
        if config.probe_audio:
            manifest, unusable = probe_files(manifest, self.root)
        report = CountReport(
            self.corpus,
            tuple(self.counts),
            (*self.missing, *(paths[i] for i in np.flatnonzero(sizes < 0))),
            tuple(paths[i] for i in np.flatnonzero(sizes == 0)),
            unusable,
            tuple(self.notes),
        )
        if config.strict:
            report.raise_if_incomplete(self.root)
        return Prepared(self.root, manifest, dict(self.trials), report)


def _filled(name: str, values: Sequence[Any]) -> bool:
    return name in ("utterance", "path") or any(value != "" for value in values)


def probe_files(manifest: Manifest, root: Path) -> tuple[Manifest, tuple[str, ...]]:
    """Fill ``duration_s`` and ``sample_rate`` from the headers; also the files that have none.

    A row that is a piece of a file keeps its own duration.
    """
    from glottis.audio import probe  # here: reading lists needs no decoder

    paths = list(dict.fromkeys(manifest.column("path")))

    def one(path: str) -> tuple[float | None, int | None]:
        try:
            info = probe(root / path)
        except (AudioError, OSError):
            return None, None
        return info.duration_s, info.sample_rate

    with ThreadPoolExecutor(_PROBE_THREADS) as pool:
        found = dict(zip(paths, pool.map(one, paths, chunksize=64), strict=True))
    seconds = [found[path][0] for path in manifest.column("path")]
    rates = [found[path][1] for path in manifest.column("path")]
    unusable = tuple(path for path in paths if found[path][1] is None)
    piece = manifest.column("end_s") - manifest.column("start_s")
    whole = np.isnan(piece)
    durations = [s if w else float(p) for s, w, p in zip(seconds, whole, piece, strict=True)]
    filled = manifest.with_columns(
        duration_s=pa.array(durations, pa.float64()), sample_rate=pa.array(rates, pa.int32())
    )
    return filled, unusable
