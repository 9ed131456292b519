"""The manifest: one table that says what every clip is.

    manifest = Manifest.read("corpus.parquet")
    train = manifest.select(split="train")
    train.factor("speaker").names          # class names, in a fixed order

Inside is an Arrow table; columns become numpy arrays on first use.  A manifest never changes:
`select`, `take` and `with_columns` give new ones.  N utterances.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glottis.data._files import file_sizes, some
from glottis.data.manifest_check import COLUMNS, TEXT, tidy_paths, validated
from glottis.data.manifest_io import read_table, write_table
from glottis.errors import DataError

log = logging.getLogger(__name__)

SUMMARY_COLUMNS = ("split", "label", "gender", "language", "channel", "source", "licence")
_GROUPS_SHOWN = 50


@dataclass(frozen=True)
class Factor:
    """A text column as small integers: ``names[codes[i]]`` is the value of row i.

    names: the distinct values, sorted, so that a class index never depends on row order.
    codes: (N,) int64.
    """

    names: tuple[str, ...]
    codes: np.ndarray


@dataclass(frozen=True)
class FileCheck:
    """Which files of a manifest are not usable on this disk."""

    rows: int
    published_rows: int | None
    missing: tuple[str, ...]
    empty: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Every file is there and holds something."""
        return not self.missing and not self.empty

    def text(self) -> str:
        """One line for people; the first ten files of each kind are named."""
        published = "" if self.published_rows is None else f" ({self.published_rows} published)"
        parts = [f"{self.rows} clips{published}"]
        if self.missing:
            parts.append(f"{len(self.missing)} files are missing: {some(self.missing)}")
        if self.empty:
            parts.append(f"{len(self.empty)} files are empty: {some(self.empty)}")
        return "; ".join(parts)

    def raise_if_bad(self, root: Path) -> None:
        """A `DataError` that names the first files if some are missing.

        Empty files are told only: like other broken audio they are quarantined when they are met.
        """
        if not self.missing and self.empty:
            log.warning("%s: %s; they go to the quarantine", root, self.text())
        if self.missing:
            raise DataError(
                f"{root}: {self.text()}",
                why="a run on half a corpus has numbers that compare with nothing",
                fix="complete the corpus or remove these rows; data.root (--root) must be the "
                "folder that the paths start from",
                rule="P11",
            )


class Manifest:
    """A validated table of clips.

    table: columns as in `manifest_check.COLUMNS` (``utterance`` and ``path`` are required); other
    columns of text, numbers or true/false are kept.
    source: named in errors, usually the file.
    """

    def __init__(self, table: pa.Table, source: str = "manifest") -> None:
        self._table = validated(table, source)
        self._columns: dict[str, np.ndarray] = {}

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, Sequence[Any] | pa.Array | np.ndarray], source: str = "manifest"
    ) -> Manifest:
        """A manifest from name -> values; empty columns that nobody filled are left out."""
        return cls(pa.table(dict(columns)), source)

    @classmethod
    def read(cls, path: str | Path) -> Manifest:
        """From ``.csv``, ``.tsv`` or ``.parquet``; a million rows take about a second."""
        return cls(read_table(Path(path)), str(path))

    @classmethod
    def _of(cls, table: pa.Table) -> Manifest:
        """Rows of an already valid table."""
        manifest = cls.__new__(cls)
        manifest._table, manifest._columns = table, {}
        return manifest

    @classmethod
    def concat(cls, manifests: Sequence[Manifest], source: str = "joined manifests") -> Manifest:
        """All rows of several manifests; columns that one of them lacks are empty there."""
        tables = [manifest.table for manifest in manifests]
        return cls(pa.concat_tables(tables, promote_options="default"), source)

    def write(self, path: str | Path) -> None:
        """Write atomically as ``.csv``, ``.tsv`` or ``.parquet``."""
        write_table(self._table, Path(path))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        return f"Manifest({len(self)} clips, columns {', '.join(self.columns)})"

    def __getstate__(self) -> dict[str, Any]:
        return {"_table": self._table, "_columns": {}}  # workers make their own arrays

    @property
    def table(self) -> pa.Table:
        """The Arrow table."""
        return self._table

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are present."""
        return tuple(self._table.column_names)

    def column(self, name: str) -> np.ndarray:
        """(N,) values, read-only: text as objects, unknown seconds as NaN, unknown rate as 0.

        A standard column that the file does not have is empty; any other unknown name is an error.
        """
        if name not in self._columns:
            values = self._to_numpy(self.arrow(name), name)
            values.flags.writeable = False
            self._columns[name] = values
        return self._columns[name]

    def arrow(self, name: str) -> pa.Array:
        """The column as one Arrow array."""
        if name in self._table.column_names:
            column = self._table[name].combine_chunks()
            return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        if name not in COLUMNS:
            raise DataError(
                f"the manifest has no column '{name}'", fix=f"columns: {', '.join(self.columns)}"
            )
        kind = COLUMNS[name]
        return pa.repeat(pa.scalar("" if kind == TEXT else None, kind), len(self))

    @staticmethod
    def _to_numpy(array: pa.Array, name: str) -> np.ndarray:
        if name == "sample_rate":
            return np.array(array.fill_null(0))
        if pa.types.is_floating(array.type):
            return np.array(array.fill_null(float("nan")))
        return np.array(array.to_numpy(zero_copy_only=False))

    def factor(self, name: str) -> Factor:
        """The column as class indices over its sorted distinct values."""
        encoded = self.arrow(name).cast(TEXT).dictionary_encode()
        values = encoded.dictionary.to_pylist()
        order = sorted(range(len(values)), key=values.__getitem__)
        rank = np.empty(len(values), np.int64)
        rank[order] = np.arange(len(values))
        codes = rank[np.asarray(encoded.indices)] if values else np.empty(0, np.int64)
        return Factor(tuple(values[i] for i in order), codes)

    def speakers(self) -> tuple[str, ...]:
        """Sorted distinct speakers (an empty cell is nobody)."""
        return tuple(name for name in self.factor("speaker").names if name)

    # ------------------------------------------------------------ rows

    def select(self, **equals: Any) -> Manifest:
        """Rows where every named column has the value, or one of a tuple of values."""
        mask = np.ones(len(self), bool)
        for name, wanted in equals.items():
            column = self.arrow(name)
            values = wanted if isinstance(wanted, tuple | list | set | frozenset) else (wanted,)
            try:
                options = pa.array(list(values), column.type)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise DataError(f"column '{name}' holds {column.type}: {error}") from None
            mask &= np.asarray(pc.is_in(column, value_set=options))
        return self.where(mask)

    def where(self, mask: np.ndarray) -> Manifest:
        """Rows where the (N,) mask is true, in order."""
        return Manifest._of(self._table.filter(pa.array(mask)))

    def take(self, indices: Sequence[int] | np.ndarray) -> Manifest:
        """The rows with these numbers, in this order; a row must not come twice."""
        rows = np.asarray(indices, np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise DataError(f"row numbers go from 0 to {len(self) - 1}, not {rows.max()}")
        if len(np.unique(rows)) != len(rows):
            raise DataError("the same row was taken twice", why="utterances are unique")
        return Manifest._of(self._table.take(pa.array(rows)))

    def with_columns(self, **columns: Sequence[Any] | pa.Array | np.ndarray) -> Manifest:
        """A copy in which these columns are replaced or added."""
        merged = {name: self._table[name] for name in self.columns}
        merged.update({name: pa.array(values) for name, values in columns.items()})
        return Manifest(pa.table(merged), "manifest")

    def find(self, keys: Sequence[str] | pa.Array, source: str = "list") -> np.ndarray:
        """Row of each key (K,) int64, -1 where there is none.

        A key is an utterance or a path; one that fits two rows is an error.
        """
        wanted = keys.cast(TEXT) if isinstance(keys, pa.Array) else pa.array(list(keys), TEXT)
        by_name = pc.index_in(wanted, value_set=self.arrow("utterance"))
        by_path = pc.index_in(tidy_paths(wanted), value_set=self.arrow("path"))
        name_row = np.asarray(by_name.fill_null(-1), np.int64)
        path_row = np.asarray(by_path.fill_null(-1), np.int64)
        clash = (name_row >= 0) & (path_row >= 0) & (name_row != path_row)
        if self._pieces is not None:
            clash |= (name_row < 0) & (path_row >= 0) & self._pieces[np.maximum(path_row, 0)]
        if clash.any():
            names = wanted.filter(pa.array(clash)).to_pylist()
            raise DataError(
                f"{source}: {len(names)} keys fit more than one row of the manifest: {some(names)}",
                fix="use utterance names that are no path of another row",
                rule="P7",
            )
        return np.where(name_row >= 0, name_row, path_row)

    @cached_property
    def _pieces(self) -> np.ndarray | None:
        """(N,) true where several rows cut the same file; None if no row is a piece."""
        if "start_s" not in self.columns:
            return None
        paths = self.factor("path")
        return np.asarray(np.bincount(paths.codes)[paths.codes] > 1)

    def segments(self) -> list[tuple[float, float] | None] | None:
        """(start, end) in seconds of rows that are a piece of their file; None if no row is."""
        if "start_s" not in self.columns:
            return None
        starts, ends = self.column("start_s").tolist(), self.column("end_s").tolist()
        return [
            None if math.isnan(start) else (start, end)
            for start, end in zip(starts, ends, strict=True)
        ]

    # ------------------------------------------------------------ identity and health

    @cached_property
    def sha256(self) -> str:
        """64 hex digits over the content: the same for CSV and Parquet, another for another order.

        Columns in which nothing is filled do not count.
        """
        digest = hashlib.sha256()
        names = [n for n in COLUMNS if n in self.columns]
        names += sorted(n for n in self.columns if n not in COLUMNS)
        for name in names:
            text = self.arrow(name).cast(TEXT).fill_null("")
            lengths = np.asarray(pc.binary_length(text), np.int64)
            if not lengths.any():
                continue
            digest.update(f"{name}\n{len(text)}\n".encode())
            digest.update(lengths.tobytes())
            offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset :]
            digest.update(memoryview(text.buffers()[2])[offsets[0] : offsets[len(text)]])
        return digest.hexdigest()

    def check(self, root: str | Path, published_rows: int | None = None) -> FileCheck:
        """Look at every file once: which are missing, which hold no byte."""
        paths = pc.unique(self.arrow("path")).to_pylist()
        sizes = file_sizes(Path(root), paths)
        return FileCheck(
            len(self),
            published_rows,
            tuple(paths[i] for i in np.flatnonzero(sizes < 0)),
            tuple(paths[i] for i in np.flatnonzero(sizes == 0)),
        )

    def summary(self) -> dict[str, Any]:
        """Plain data for the run card: clips, hours, speakers, labels, and the same per group."""
        groups = {
            name: self._by(name)
            for name in SUMMARY_COLUMNS
            if bool(np.any(self.column(name) != ""))
        }
        return {**self._totals(), "sha256": self.sha256, "by": groups}

    def _by(self, name: str) -> dict[str, Any]:
        factor = self.factor(name)
        sizes = np.bincount(factor.codes, minlength=len(factor.names))
        order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], factor.names[i]))
        rows = {
            factor.names[i] or "(unknown)": self.where(factor.codes == i)._totals()
            for i in order[:_GROUPS_SHOWN]
        }
        if len(order) > _GROUPS_SHOWN:
            rest = np.isin(factor.codes, order[_GROUPS_SHOWN:])
            rows[f"({len(order) - _GROUPS_SHOWN} more)"] = self.where(rest)._totals()
        return rows

    def _totals(self) -> dict[str, Any]:
        seconds = self.column("duration_s")
        known = np.isfinite(seconds)
        labels = self.factor("label")
        counts = np.bincount(labels.codes, minlength=len(labels.names))
        return {
            "clips": len(self),
            "hours": round(float(seconds[known].sum()) / 3600, 4) if known.any() else None,
            "clips_without_duration": int((~known).sum()),
            "speakers": len(self.speakers()),
            "labels": {n: int(c) for n, c in zip(labels.names, counts, strict=True) if n},
        }
