"""Scores as log-likelihood ratios: scale and offset, learned once, kept in the card of a model.

    calibration = fit_calibration(scores, development_trials)
    ratios = calibration(scores)                 # natural logarithm; 0 = both equally likely

Logistic regression with both classes of the same weight (`fit_fusion` of one system): the prior of
the application is not in it.  Errors of ranking (EER, minimum costs) stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from glottis.data import DevelopmentProtocol, DevelopmentTrials
from glottis.errors import ResultError
from glottis.score._checks import FloatArray, split_by_class
from glottis.score.detection_cost import cllr
from glottis.score.fusion import fit_fusion


@dataclass(frozen=True)
class Calibration:
    """``scale * score + offset``; the list that it was learned on, and its Cllr there."""

    scale: float
    offset: float
    list: str
    list_sha256: str
    cllr_before: float
    cllr_after: float

    def __call__(self, scores: npt.ArrayLike) -> FloatArray:
        """Natural-log likelihood ratios, of the shape of the scores."""
        ratios: FloatArray = self.scale * np.asarray(scores, np.float64) + self.offset
        return ratios

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the card."""
        return asdict(self)


def fit_calibration(
    scores: npt.ArrayLike, data: DevelopmentTrials | DevelopmentProtocol
) -> Calibration:
    """Learn it on development data.

    scores: (N,) in the order of ``data``.  Raises ResultError if higher scores are not those of
    targets (or bona fide clips): decisions would turn round.
    """
    values = np.asarray(scores)
    fitted = fit_fusion(values[None], data)
    (scale,), offset = fitted.weights, fitted.offset
    if not scale > 0:
        raise ResultError(
            f"the scores on {data.source} do not tell the classes apart (scale {scale:.3g})",
            why="a calibration that turns the order round would answer the opposite of the score",
            fix="train longer, or look at the labels of the list",
        )
    is_target = data.target if isinstance(data, DevelopmentTrials) else data.bonafide
    before = split_by_class(values, is_target)[:2]
    after = split_by_class(scale * values.astype(np.float64) + offset, is_target)[:2]
    return Calibration(
        scale, offset, str(data.source), data.sha256, float(cllr(*before)), float(cllr(*after))
    )


def calibration_of(card: Mapping[str, Any]) -> Calibration | None:
    """That of the card of a checkpoint, if it has one."""
    found = card["extra"].get("calibration")
    return None if found is None else Calibration(**found)
