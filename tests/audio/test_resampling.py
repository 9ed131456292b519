"""Resampling: lengths, rates, and the signal stays where it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glottis.audio import Audio, resample
from glottis.errors import ConfigError
from helpers.audio_files import voice

RATES = [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000]


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 50000), old=st.sampled_from(RATES), new=st.sampled_from(RATES))
def test_length_follows_the_ratio_of_the_rates(count: int, old: int, new: int) -> None:
    result = resample(Audio(np.zeros(count, np.float32), old, ("quiet: x",)), new)
    assert result.sample_rate == new
    assert len(result.samples) == count * new // old
    assert result.samples.dtype == np.float32
    assert result.warnings == ("quiet: x",)


def test_the_same_rate_is_the_same_samples() -> None:
    audio = Audio(voice(0.5), 16000)
    assert np.array_equal(resample(audio, 16000).samples, audio.samples)


@pytest.mark.parametrize("old", [8000, 22050, 44100, 96000])
def test_a_tone_keeps_its_phase_and_level(old: int) -> None:
    def tone(rate: int) -> np.ndarray:
        time = np.arange(rate) / rate
        return (0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)

    result = resample(Audio(tone(old), old), 16000).samples
    inner = slice(1000, 15000)
    np.testing.assert_allclose(result[inner], tone(16000)[inner], atol=2e-5)


def test_what_the_new_rate_cannot_hold_is_removed_not_folded() -> None:
    time = np.arange(48000) / 48000
    high = Audio(np.sin(2 * np.pi * 11000 * time).astype(np.float32), 48000)
    assert np.abs(resample(high, 16000).samples[500:-500]).max() < 1e-4


def test_overshoot_stays_within_full_scale() -> None:
    square = np.sign(np.sin(np.arange(8000) * 0.3)).astype(np.float32)
    result = resample(Audio(square, 8000), 16000).samples
    assert np.abs(result).max() == 1.0


@pytest.mark.parametrize("rate", [0, -1, 16000.0, True])
def test_impossible_rates_are_refused(rate: object) -> None:
    with pytest.raises(ConfigError, match="positive whole number"):
        resample(Audio(np.zeros(10, np.float32), 8000), rate)  # type: ignore[arg-type]
