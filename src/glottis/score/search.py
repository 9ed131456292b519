"""Who of many is it?  Search a file of embeddings, exactly or in two stages.

    gallery = Gallery(Embeddings.load("voices.parquet"))
    gallery.search(queries, top=5)                 # every voice print, all values
    gallery.search(queries, top=5, shortlist=200)  # the 200 best by the first 64 values, then all

Two stages read a quarter of the memory: the first compares the smallest trained size of every voice
print, the second all values of the ``shortlist`` best.  What the first stage misses is lost: the
share of queries whose best match stays (recall) has to be measured (benchmarks/bench_search.py).

Shapes: N voice prints, Q queries, D embedding, d its smallest size, K matches.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from glottis.errors import ConfigError, ResultError
from glottis.score.embeddings import Embeddings, unit_length

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_BLOCK = 2**24  # scores at once


class Gallery:
    """N voice prints that can be searched.  utterances: their names, in the order of the rows."""

    def __init__(self, embeddings: Embeddings) -> None:
        if not len(embeddings):
            raise ResultError("there are no voice prints to search", fix="embed some files first")
        self.utterances, self.dims = embeddings.utterances, embeddings.dims
        self.whole = unit_length(embeddings.matrix, embeddings.utterances)

    def __len__(self) -> int:
        return len(self.whole)

    @cached_property
    def prefix(self) -> Floats:
        """(N, d) a copy of its own: the first values of all rows side by side, at unit length."""
        return unit_length(np.ascontiguousarray(self.whole[:, : self.dims[0]]), self.utterances)

    def search(
        self, queries: Floats, top: int = 5, shortlist: int | None = None
    ) -> tuple[Rows, Floats]:
        """(Q, K) rows of the best matches and their cosines, the best first; K = min(top, N).

        queries: (Q, D), of any length.  shortlist: voice prints that the second stage compares;
        None compares all of them with all values.
        """
        if queries.ndim != 2 or queries.shape[1] != self.whole.shape[1]:
            raise ResultError(
                f"queries of shape {queries.shape} for voice prints of {self.whole.shape[1]} "
                "values",
                fix="embed both with one model and one size",
            )
        unit = unit_length(np.ascontiguousarray(queries), [str(i) for i in range(len(queries))])
        top = min(top, len(self))
        if shortlist is None or shortlist >= len(self):
            return _nearest(self.whole, unit, top)
        if len(self.dims) == 1:
            raise ConfigError(
                f"these voice prints have one size, {self.dims[0]}",
                why="a shortlist is made with a smaller size, and none was trained",
                fix="leave the shortlist out, or train with loss.name=matryoshka",
            )
        if shortlist < top:
            raise ConfigError(f"a shortlist of {shortlist} for {top} matches", fix="make it longer")
        first = unit_length(
            np.ascontiguousarray(unit[:, : self.dims[0]]), [str(i) for i in range(len(unit))]
        )
        candidates, _ = _nearest(self.prefix, first, shortlist)
        scores = np.stack(
            [self.whole[rows] @ query for rows, query in zip(candidates, unit, strict=True)]
        )
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        return np.take_along_axis(candidates, order, 1), np.take_along_axis(scores, order, 1)


def _nearest(gallery: Floats, queries: Floats, top: int) -> tuple[Rows, Floats]:
    """(Q, top) rows of the largest cosines and these, in blocks of queries."""
    voices = torch.from_numpy(gallery)
    rows, scores = [], []
    count = max(1, _BLOCK // len(gallery))
    for start in range(0, len(queries), count):
        block = torch.from_numpy(queries[start : start + count])
        best = torch.topk(block @ voices.T, top, dim=1)
        rows.append(best.indices.numpy())
        scores.append(best.values.numpy())
    if not rows:
        return np.empty((0, top), np.int64), np.empty((0, top), np.float32)
    return np.concatenate(rows), np.concatenate(scores)
