"""What every metric demands of its input: scores that are there, finite and one-dimensional."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from glottis.errors import ResultError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ArrayLike = npt.ArrayLike
Names = Sequence[str] | npt.NDArray[np.object_]
"""Text per item: ids, speakers, conditions."""


def checked_scores(scores: ArrayLike, name: str) -> FloatArray:
    """The scores of one class as float64 (N,); empty, 2-D or non-finite ones are a `ResultError`.

    name: what they are, for the message ("target", "spoof").
    """
    array = np.asarray(scores)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise ResultError(
            f"the {name} scores have shape {array.shape} and type {array.dtype}",
            why="a score is one number per trial",
            fix="pass a one-dimensional array of numbers",
        )
    if array.size == 0:
        raise ResultError(
            f"there are no {name} scores",
            why="error rates need trials of both classes",
            fix="check the key: is a class missing, or are its labels spelled otherwise?",
            rule="E1",
        )
    array = array.astype(np.float64, copy=False)
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ResultError(
            f"{bad.size} of {array.size} {name} scores are not finite, the first at position "
            f"{int(bad[0])}: {array[bad[0]]}",
            why="an error rate over the remaining trials would be that of another list",
            fix="find the utterances with broken embeddings; do not drop the trials",
            rule="E1",
        )
    return array


def split_by_class(
    scores: ArrayLike, is_target: npt.ArrayLike, names: tuple[str, str] = ("target", "nontarget")
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Scores of the two classes and the mask; lengths must agree."""
    mask = np.asarray(is_target)
    array = np.asarray(scores)
    if array.shape != mask.shape:
        raise ResultError(
            f"{array.shape[0] if array.ndim else 0} scores for {mask.size} trials",
            why="every trial of the list needs exactly one score",
            fix="score the whole list again; nothing may be skipped",
            rule="E1",
        )
    if mask.dtype != np.bool_:
        raise ResultError(
            f"the labels are of type {mask.dtype}, not booleans",
            why="0 and 1 are used in both polarities",
            fix="pass labels == 'target' or the like",
        )
    if array.ndim == 1:
        checked_scores(array, "trial")
    return (
        checked_scores(array[mask], names[0]),
        checked_scores(array[~mask], names[1]),
        mask,
    )


def refuse_constant(scores: FloatArray) -> None:
    """`ResultError` if every trial has the same score: nothing was measured."""
    if scores.size > 1 and np.all(scores == scores[0]):
        raise ResultError(
            f"all {scores.size} scores are {scores[0]:g}",
            why="a constant score says nothing about any trial (a collapsed or untrained model)",
            fix="look at the embeddings: norm, spread, and whether the right file was loaded",
            rule="E1",
        )


def listed(names: Names, rows: npt.NDArray[np.int64] | None = None, limit: int = 5) -> str:
    """``a, b, c and 7 more``; rows: only these positions of ``names``."""
    if rows is not None:
        names = [str(names[row]) for row in rows.tolist()]
    shown = ", ".join(str(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
