"""A seeded sample that keeps the shares of groups."""

from __future__ import annotations

import numpy as np

from glottis.errors import DataError
from glottis.rng import generator


def shares(total: int, sizes: np.ndarray) -> np.ndarray:
    """``total`` items divided in proportion to ``sizes`` (G,), by largest remainder, (G,) int64."""
    exact = total * sizes / max(1, sizes.sum())
    counts: np.ndarray = np.floor(exact).astype(np.int64)
    short = total - int(counts.sum())
    order = np.lexsort((np.arange(len(sizes)), -(exact - counts)))
    counts[order[:short]] += 1
    return counts


def stratified_sample(groups: np.ndarray, num: int, seed: int, source: str) -> np.ndarray:
    """(N,) mask of ``num`` rows; every group of ``groups`` (N,) keeps its share (P9).

    A group never vanishes as long as ``num`` is at least the number of groups.
    """
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if not len(names) <= num <= len(groups):
        raise DataError(
            f"{source}: cannot draw {num} of {len(groups)} rows in {len(names)} groups",
            fix=f"ask for {len(names)} to {len(groups)}",
            rule="P9",
        )
    counts = 1 + shares(num - len(names), sizes - 1)
    mask = np.zeros(len(groups), bool)
    for index, count in enumerate(counts):
        rng = generator(seed, "subset", int(names[index]))
        members = np.flatnonzero(codes == index)
        mask[rng.permutation(members)[:count]] = True
    return mask
