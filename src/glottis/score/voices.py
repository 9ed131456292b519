"""Who speaks in each trial: what an interval has to resample.

A list of 20,000 trials of 40 speakers is 40 observations of speakers, not 20,000 of anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from glottis.score._checks import BoolArray, Names

Codes = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Voices:
    """The voices on the two sides of every trial, class by class.

    first, second: per class, (N,) numbers of the voice on the first and the second side; equal
    numbers mean one voice (a target trial, or a task with one voice per trial).
    sides: how many voices each side has; the smallest number decides which interval is honest.
    """

    first: tuple[Codes, ...]
    second: tuple[Codes, ...]
    num_voices: int
    sides: dict[str, int]

    @property
    def fewest(self) -> int:
        """Voices on the side that has the fewest."""
        return min(self.sides.values())


def trial_voices(is_target: BoolArray, enrol_speakers: Names, test_speakers: Names) -> Voices:
    """Voices of verification trials (N,): enrolment side, test side, and those with targets."""
    first, second, count = _codes(enrol_speakers, test_speakers)
    return Voices(
        (first[is_target], first[~is_target]),
        (second[is_target], second[~is_target]),
        count,
        {
            "enrolment speakers": _distinct(first),
            "test speakers": _distinct(second),
            "target speakers": _distinct(first[is_target]),
        },
    )


def clip_voices(is_bonafide: BoolArray, speakers: Names) -> Voices:
    """Voices of spoofing trials (N,): one per clip, counted on the bona fide and the spoof side."""
    codes, _, count = _codes(speakers, [])
    groups = (codes[is_bonafide], codes[~is_bonafide])
    sides = {"bona fide voices": _distinct(groups[0]), "spoof voices": _distinct(groups[1])}
    return Voices(groups, groups, count, sides)


def sasv_voices(classes: np.ndarray, speakers: Names) -> Voices:
    """Voices of spoofing-aware trials (N,) by claimed speaker; classes 0 target, 1 non-target,
    2 spoof."""
    codes, _, count = _codes(speakers, [])
    groups = tuple(codes[classes == kind] for kind in range(3))
    names = ("target speakers", "non-target speakers", "spoofed speakers")
    sides = {name: _distinct(group) for name, group in zip(names, groups, strict=True)}
    return Voices(groups, groups, count, sides)


def _codes(first: Names, second: Names) -> tuple[Codes, Codes, int]:
    """Small numbers for names, the same for both columns."""
    both = pa.array([*first, *second], pa.string()).dictionary_encode()
    codes = both.indices.to_numpy()
    return codes[: len(first)], codes[len(first) :], len(both.dictionary)


def _distinct(codes: Codes) -> int:
    return int(np.unique(codes).size)
