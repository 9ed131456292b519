"""Embeddings that know whose they are: every row carries its utterance id, from batch to file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glottis.errors import DataError, ResultError
from glottis.files import atomic_path
from glottis.models.sizes import require_trained
from glottis.score._checks import Names, listed
from glottis.version import __version__

FORMAT = 1
_KEY = b"glottis.embeddings"
_ROWS = 4096
_AGAIN = "make the file again with glottis embed"


@dataclass(frozen=True, eq=False)
class Embeddings:
    """N utterances with one vector each.

    utterances: (N,) distinct ids.  matrix: (N, D) float32, as the network gives it (any length).
    about: plain data that travels with the file: ``dims`` (the sizes that were trained, growing),
    ``model``, ``weights_sha256``.
    """

    utterances: Names
    matrix: npt.NDArray[np.float32]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.matrix.dtype != np.float32:
            raise ResultError(
                f"embeddings of shape {self.matrix.shape} and type {self.matrix.dtype}",
                fix="pass one float32 row per utterance",
            )
        if len(self.utterances) != len(self.matrix):
            raise ResultError(
                f"{len(self.utterances)} utterances but {len(self.matrix)} embeddings",
                why="every embedding must belong to exactly one utterance",
                rule="E3",
            )
        counts = pc.value_counts(pa.array(self.utterances, pa.large_string()))
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
        if twice:
            raise ResultError(
                f"{len(twice)} utterances occur twice: {listed(twice)}",
                why="it would be left to chance which of the two embeddings is scored",
                rule="E3",
            )
        bad = np.flatnonzero(~np.isfinite(self.matrix).all(axis=1))
        if bad.size:
            raise ResultError(
                f"{bad.size} of {len(self.matrix)} embeddings are not finite: "
                f"{listed(self.utterances, bad)}",
                why="their trials have no score, and leaving them out changes the list",
                fix="look at these files (silence?) and at the weights (glottis inspect)",
                rule="E1",
            )

    def __len__(self) -> int:
        return len(self.matrix)

    def rows(self, utterances: Names) -> npt.NDArray[np.int64]:
        """(N,) row of each utterance; a missing one is a `ResultError` that names it."""
        wanted = pa.array(utterances, pa.large_string())
        own = pa.array(self.utterances, pa.large_string())
        found = pc.index_in(wanted, value_set=own)
        if found.null_count:
            missing = pc.unique(wanted.filter(pc.is_null(found))).to_pylist()
            raise ResultError(
                f"{len(missing)} utterances have no embedding: {listed(missing)}",
                why="skipped trials would make another, easier list",
                fix="embed every utterance of the list",
                rule="E1",
            )
        return np.asarray(found.to_numpy(), np.int64)

    def take(self, utterances: Names) -> Embeddings:
        """The embeddings of these utterances, in this order."""
        return Embeddings(list(utterances), self.matrix[self.rows(utterances)], self.about)

    @property
    def dims(self) -> tuple[int, ...]:
        """The sizes that `dim` gives; the last is the whole."""
        return tuple(self.about.get("dims") or (self.matrix.shape[1],))

    def dim(self, size: int) -> Embeddings:
        """The first ``size`` values, at unit length; one of ``dims`` (a Matryoshka training)."""
        return self.cut(require_trained(size, self.dims))

    def cut(self, size: int) -> Embeddings:
        """The first ``size`` values at unit length, whether they were trained for it or not."""
        full = self.matrix.shape[1]
        if not 1 <= size <= full:
            raise ResultError(f"dimension {size} of embeddings with {full} values")
        part = unit_length(self.matrix[:, :size], self.utterances)
        left = [one for one in self.dims if one <= size]
        return Embeddings(
            self.utterances, part, {**self.about, "dims": left if size in left else [size]}
        )

    def save(self, path: str | Path) -> None:
        """Write as Parquet (columns ``utterance``, ``embedding``), whole or not at all."""
        values = pa.array(np.ascontiguousarray(self.matrix).reshape(-1))
        table = pa.table(
            {
                "utterance": pa.array(self.utterances, pa.string()),
                "embedding": pa.FixedSizeListArray.from_arrays(values, self.matrix.shape[1]),
            }
        )
        notes = {"format": FORMAT, "glottis": __version__, "about": dict(self.about)}
        with atomic_path(Path(path)) as temporary:
            pq.write_table(
                table.replace_schema_metadata({_KEY: json.dumps(notes).encode()}), temporary
            )

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read what `save` wrote; a newer format is refused."""
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"cannot read embeddings from {path}: {error}") from None
        metadata = table.schema.metadata or {}
        if _KEY not in metadata or table.column_names != ["utterance", "embedding"]:
            raise DataError(
                f"{path} holds no embeddings of Glottis", fix="make it with glottis embed"
            )
        try:
            notes = json.loads(metadata[_KEY])
            known = isinstance(notes["format"], int) and isinstance(notes["about"], dict)
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise DataError(f"{path}: what it says about itself cannot be read", fix=_AGAIN)
        if notes["format"] > FORMAT:
            raise DataError(
                f"{path} was written by Glottis {notes['glottis']} in format {notes['format']}",
                why=f"this is Glottis {__version__}, which reads formats up to {FORMAT}",
                fix="update Glottis",
            )
        column, names = table["embedding"].combine_chunks(), table["utterance"]
        if not pa.types.is_fixed_size_list(column.type) or column.flatten().null_count:
            raise DataError(f"{path}: its embeddings are no rows of one length", fix=_AGAIN)
        if not pa.types.is_string(names.type) or names.null_count:
            raise DataError(f"{path}: its utterances are not all named", fix=_AGAIN)
        size, about = column.type.list_size, notes["about"]
        dims = about.get("dims") or [size]
        if sorted(set(dims)) != list(dims) or dims[-1] != size or dims[0] < 1:
            raise DataError(f"{path}: sizes {dims} of embeddings with {size} values", fix=_AGAIN)
        matrix = np.array(column.flatten().to_numpy(), np.float32).reshape(-1, size)
        try:
            return cls(names.to_pylist(), matrix, about)
        except ResultError as error:
            raise DataError(
                f"{path}: {error.seen}", why=error.why, fix=_AGAIN, rule=error.rule
            ) from None


def unit_length(matrix: npt.NDArray[np.float32], utterances: Names) -> npt.NDArray[np.float32]:
    """Rows divided by their Euclidean norm; a row of zeros is a `ResultError`.  (N, D)"""
    unit = np.empty_like(matrix)
    norms = np.empty(len(matrix), np.float32)
    for start in range(0, len(matrix), _ROWS):  # blocks that stay in the cache
        part = matrix[start : start + _ROWS]
        squares = np.einsum("nd,nd->n", part, part, dtype=np.float64)
        norms[start : start + _ROWS] = np.sqrt(squares)
        with np.errstate(divide="ignore", invalid="ignore"):  # zero rows are refused below
            np.divide(part, norms[start : start + _ROWS, None], out=unit[start : start + _ROWS])
    zero = np.flatnonzero(norms == 0)
    if zero.size:
        raise ResultError(
            f"{zero.size} embeddings are all zeros: {listed(utterances, zero)}",
            why="the angle to a zero vector is undefined",
            fix="look at these files and at the weights (glottis inspect)",
            rule="E1",
        )
    return unit
