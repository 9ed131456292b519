"""Talkers differ, but not in one number."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from glottis.rng import generator
from glottis.synth.talkers import Talker, draw_talker


def many(gender: str, count: int = 300) -> list[Talker]:
    return [draw_talker(generator(1, gender, i), f"{gender}{i}", gender) for i in range(count)]


WOMEN, MEN = many("f"), many("m")


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Error rate of the best single threshold between two samples."""
    edges = np.sort(np.concatenate([a, b]))
    errors = [0.5 * (np.mean(a < edge) + np.mean(b >= edge)) for edge in edges]
    return float(min(min(errors), 1 - max(errors)))


@pytest.mark.parametrize(
    "feature",
    [lambda t: np.log(t.f0_hz), lambda t: t.tract_cm, lambda t: t.formant_scale[2]],
    ids=["f0", "tract", "third formant"],
)
def test_genders_differ_on_average_and_overlap(feature: object) -> None:
    women = np.array([feature(t) for t in WOMEN])  # type: ignore[operator]
    men = np.array([feature(t) for t in MEN])  # type: ignore[operator]
    assert abs(women.mean() - men.mean()) > women.std()
    assert 0.0 < overlap(women, men) < 0.2


@pytest.mark.parametrize("people", [WOMEN, MEN], ids=["f", "m"])
def test_mean_f0_of_talkers_of_one_gender_spreads_less_than_thrice_the_day_to_day_change(
    people: list[Talker],
) -> None:
    spread = np.std(np.log([t.f0_hz for t in people]))
    within = np.hypot(0.055, 0.05)  # sessions.py: session and utterance
    assert 0.5 * within < spread < 3.0 * within


def test_every_number_of_a_talker_varies() -> None:
    for field in dataclasses.fields(Talker):
        if field.name not in ("name", "gender"):
            values = np.array([getattr(t, field.name) for t in WOMEN])
            assert np.all(np.isfinite(values)), field.name
            assert np.all(values.std(axis=0) > 0), field.name


def test_formants_are_not_one_scale_factor() -> None:
    scales = np.log(np.array([t.formant_scale for t in MEN]))
    residual = scales - scales.mean(axis=1, keepdims=True)
    assert np.all(residual.std(axis=0) > 0.01)


def test_the_same_stream_gives_the_same_talker() -> None:
    again = draw_talker(generator(1, "f", 3), "f3", "f")
    for field in dataclasses.fields(Talker):
        assert np.all(getattr(again, field.name) == getattr(WOMEN[3], field.name))
