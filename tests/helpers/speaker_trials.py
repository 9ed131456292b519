"""Verification trials with speaker effects, whose true EER is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

TARGET_SPREAD, OTHER_SPREAD, DISTANCE = 1.0, 0.6, 4.0
TRUE_EER = float(ndtr(-DISTANCE / (np.sqrt(TARGET_SPREAD**2 + 1) + np.sqrt(2 * 0.36 + 1))))


@dataclass
class SpeakerTrials:
    """Every speaker against every other, and ``per_speaker`` targets each."""

    scores: np.ndarray
    is_target: np.ndarray
    enrol: list[str]
    test: list[str]


def draw_trials(rng: np.random.Generator, num_speakers: int, per_speaker: int = 8) -> SpeakerTrials:
    """Target score = 4 + effect of the speaker + noise; non-target = effects of both + noise."""
    speaker = np.arange(num_speakers)
    own = rng.normal(0, TARGET_SPREAD, num_speakers)
    other = rng.normal(0, OTHER_SPREAD, num_speakers)
    same = np.repeat(speaker, per_speaker)
    first, second = (grid.ravel() for grid in np.meshgrid(speaker, speaker, indexing="ij"))
    first, second = first[first != second], second[first != second]
    target = DISTANCE + own[same] + rng.normal(0, 1, len(same))
    nontarget = other[first] + other[second] + rng.normal(0, 1, len(first))
    return SpeakerTrials(
        np.concatenate([target, nontarget]),
        np.arange(len(target) + len(nontarget)) < len(target),
        [f"s{i}" for i in np.concatenate([same, first])],
        [f"s{i}" for i in np.concatenate([same, second])],
    )
