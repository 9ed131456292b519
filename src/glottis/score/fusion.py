"""Several systems as one: a weighted sum of their scores for the same trials.

    fused = mean_fusion(2)(scores)                          # (K, N) -> (N,)
    fusion = fit_fusion(dev_scores, dev_trials, "logistic")  # learns on development data only
    fused = fusion(scores)

Weights that are learned are learned from development lists, which have a type of their own: an
evaluation list is refused (rule P6).

standardised: every system's scores with mean 0 and deviation 1 over the development trials, then
averaged.  logistic: linear logistic regression at prior odds of 1, both classes with the same
total weight; its output is a log-likelihood ratio.  Brümmer et al., "Fusion of heterogeneous
speaker recognition systems in the STBU submission for the NIST SRE 2006", IEEE TASLP 2007.

Shapes: K systems, N trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from glottis.data import DevelopmentProtocol, DevelopmentTrials
from glottis.errors import ConfigError, DataError, ResultError
from glottis.score._checks import FloatArray, checked_scores, refuse_constant, split_by_class

Learned = Literal["standardised", "logistic"]

_RIDGE = 1e-6  # on weights of standardised scores: finite where the classes do not overlap
_STEPS = 100
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Fusion:
    """A weighted sum of K scores and an offset.

    calibrated: whether what comes out is a log-likelihood ratio.
    """

    weights: tuple[float, ...]
    offset: float = 0.0
    calibrated: bool = False

    def __call__(self, scores: npt.ArrayLike) -> FloatArray:
        """(K, N) scores of K systems for the same trials -> (N,)."""
        matrix = _checked(scores)
        if len(matrix) != len(self.weights):
            raise ResultError(
                f"scores of {len(matrix)} systems for a fusion of {len(self.weights)}",
                fix="give the systems in the order in which the fusion was made",
            )
        fused: FloatArray = np.asarray(self.weights) @ matrix + self.offset
        return fused


def mean_fusion(count: int, weights: Sequence[float] | None = None) -> Fusion:
    """The mean of ``count`` systems; with ``weights`` the weighted one (divided by their sum)."""
    chosen = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if len(chosen) != count:
        raise ConfigError(f"{len(chosen)} weights for {count} systems", fix="give one for each")
    if not (np.isfinite(chosen).all() and (chosen >= 0).all() and chosen.sum() > 0):
        raise ConfigError(
            f"the weights are {', '.join(f'{w:g}' for w in chosen)}",
            fix="give numbers from 0, not all of them 0",
        )
    return Fusion(tuple((chosen / chosen.sum()).tolist()))


def fit_fusion(
    scores: npt.ArrayLike, data: DevelopmentTrials | DevelopmentProtocol, how: Learned = "logistic"
) -> Fusion:
    """The fusion that development scores teach.

    scores: (K, N) of K systems, in the order of ``data``.
    """
    if not isinstance(data, DevelopmentTrials | DevelopmentProtocol):
        raise DataError(
            f"{getattr(data, 'source', type(data).__name__)} is not development data",
            why="weights that were learned on the trials that are reported report themselves",
            fix="learn them on a development list",
            rule="P6",
        )
    matrix = _checked(scores)
    is_target = data.target if isinstance(data, DevelopmentTrials) else data.bonafide
    for row in matrix:
        split_by_class(row, is_target)  # one score per trial, both classes present
        refuse_constant(row)
    mean, deviation = matrix.mean(axis=1), matrix.std(axis=1)
    if how == "standardised":
        weights, offset = np.full(len(matrix), 1 / len(matrix)), 0.0
    elif how == "logistic":
        standard = (matrix - mean[:, None]) / deviation[:, None]
        weights, offset = _logistic(standard, np.asarray(is_target, bool))
    else:
        raise ConfigError(f"there is no fusion '{how}'", fix="standardised or logistic")
    weights = weights / deviation
    return Fusion(
        tuple(weights.tolist()), float(offset - weights @ mean), calibrated=how == "logistic"
    )


def _logistic(x: FloatArray, is_target: npt.NDArray[np.bool_]) -> tuple[FloatArray, float]:
    """Newton's method on the mean loss with both classes of the same weight: (K,) and offset."""
    count, sign = x.shape[1], np.where(is_target, 1.0, -1.0)
    mass = np.where(is_target, 0.5 / is_target.sum(), 0.5 / (~is_target).sum())
    design = np.vstack([x, np.ones(count)])  # (K + 1, N)
    ridge = _RIDGE * np.append(np.ones(len(x)), 0.0)
    theta = np.zeros(len(design))

    def loss(theta: FloatArray) -> float:
        margin = sign * (theta @ design)
        return float(mass @ np.logaddexp(0.0, -margin) + 0.5 * ridge @ theta**2)

    value = loss(theta)
    for _ in range(_STEPS):
        probability = 0.5 * (1 + np.tanh(0.5 * (theta @ design)))
        slope = design @ (mass * (probability - is_target)) + ridge * theta
        curve = (design * (mass * probability * (1 - probability))) @ design.T
        step = np.linalg.solve(curve + np.diag(ridge) + 1e-12 * np.eye(len(theta)), slope)
        length = 1.0
        while length > 1e-6 and loss(theta - length * step) > value:
            length /= 2
        theta = theta - length * step
        before, value = value, loss(theta)
        if before - value < _TOLERANCE:
            break
    return theta[:-1], float(theta[-1])


def _checked(scores: npt.ArrayLike) -> FloatArray:
    matrix = np.asarray(scores)
    if matrix.ndim != 2 or not len(matrix):
        raise ResultError(
            f"the scores have shape {matrix.shape}", fix="pass one row per system (K, N)"
        )
    return np.stack([checked_scores(row, "system's") for row in matrix])
