"""Audio refuses what is not one channel of float32 with a rate."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from glottis.audio import Audio, to_float, to_int16, warning_code
from glottis.errors import AudioError


def test_audio_knows_its_duration() -> None:
    assert Audio(np.zeros(8000, np.float32), 16000).duration_s == 0.5


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (np.zeros((2, 100), np.float32), r"one-dimensional \(S,\), not \(2, 100\)"),
        (np.zeros(100, np.float64), "float32 in .-1, 1., not float64"),
        (np.zeros(100, np.int16), "to_float"),
        ([0.0, 0.1], "not list"),
    ],
)
def test_audio_refuses_other_shapes_and_types(samples: object, says: str) -> None:
    with pytest.raises(AudioError, match=says):
        Audio(samples, 16000)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [0, -8000, 16000.0, True, None])
def test_audio_refuses_rates_that_are_none(rate: object) -> None:
    with pytest.raises(AudioError, match="positive whole number"):
        Audio(np.zeros(10, np.float32), rate)  # type: ignore[arg-type]


def test_audio_can_be_pickled() -> None:
    audio = pickle.loads(pickle.dumps(Audio(np.ones(3, np.float32), 8000, ("short: x",))))
    assert audio.sample_rate == 8000
    assert audio.warnings == ("short: x",)


def test_every_16_bit_value_survives_the_way_to_float_and_back() -> None:
    values = np.arange(-32768, 32768).astype(np.int16)
    floats = to_float(values)
    assert floats.dtype == np.float32
    assert floats.min() == -1.0
    assert np.array_equal(to_int16(floats), values)


def test_full_scale_does_not_wrap_around() -> None:
    loud = np.array([1.0, -1.0, 1.5, -1.5], np.float32)
    assert to_int16(loud).tolist() == [32767, -32768, 32767, -32768]
    assert loud.tolist() == [1.0, -1.0, 1.5, -1.5]  # the input is not touched


def test_warning_code_is_the_part_before_the_colon() -> None:
    assert warning_code("clipped: 3 % of the samples: many") == "clipped"
