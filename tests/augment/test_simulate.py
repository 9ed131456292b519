"""Simulated noise has the colour and structure that its name says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import welch

from glottis.augment import NOISE_KINDS, simulate_noise
from glottis.errors import ConfigError
from glottis.rng import generator

RATE = 16000


def make(kind: str, seconds: float = 4.0, seed: int = 0) -> np.ndarray:
    return simulate_noise(kind, int(seconds * RATE), RATE, generator(seed, kind))


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_noise_is_seeded_finite_and_has_unit_level(kind: str) -> None:
    noise = make(kind)
    assert noise.shape == (4 * RATE,)
    assert np.isfinite(noise).all()
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0)
    assert np.array_equal(noise, make(kind))
    assert not np.array_equal(noise, make(kind, seed=1))


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_no_tenth_of_a_second_is_silent(kind: str) -> None:
    blocks = make(kind).reshape(-1, RATE // 10)
    assert np.sqrt(np.mean(blocks**2, axis=1)).min() > 1e-3


@pytest.mark.parametrize("kind", NOISE_KINDS)
@pytest.mark.parametrize("samples", [1, 10, 1000])
def test_very_short_noise_is_finite(kind: str, samples: int) -> None:
    noise = simulate_noise(kind, samples, RATE, generator(1))
    assert noise.shape == (samples,)
    assert np.isfinite(noise).all()


@pytest.mark.parametrize(("kind", "slope"), [("white", 0.0), ("pink", -1.0), ("brown", -2.0)])
def test_coloured_noise_falls_with_its_exponent(kind: str, slope: float) -> None:
    hz, power = welch(make(kind, 20.0), RATE, nperseg=2048)
    band = (hz > 100) & (hz < 6000)
    fitted = np.polyfit(np.log(hz[band]), np.log(power[band]), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.1)


def test_hum_stands_on_multiples_of_the_mains_frequency() -> None:
    spectrum = np.abs(np.fft.rfft(make("hum", 10.0)))
    strongest = int(spectrum.argmax()) / 10.0
    base = 50.0 if abs(strongest / 50.0 - round(strongest / 50.0)) < 0.01 else 60.0
    assert strongest == pytest.approx(base * round(strongest / base), rel=2e-3)


def test_clicks_are_sparse_and_babble_is_not() -> None:
    def kurtosis(noise: np.ndarray) -> float:
        return float(np.mean(noise**4))

    assert kurtosis(make("clicks")) > 30.0
    assert kurtosis(make("talker")) > kurtosis(make("babble")) > 3.0


def test_talkers_have_syllables() -> None:
    """The envelope of speech is strongest at 2 to 8 Hz."""
    envelope = np.abs(make("talker", 20.0)).reshape(-1, RATE // 100).mean(1)
    hz, power = welch(envelope, 100.0, nperseg=1024)
    syllabic = power[(hz >= 1.5) & (hz <= 8.0)].mean()
    assert syllabic > 5 * power[(hz > 15.0) & (hz < 40.0)].mean()


def test_unknown_noise_is_answered_with_the_known_kinds() -> None:
    with pytest.raises(ConfigError, match="white, pink, brown"):
        simulate_noise("thunder", 10, RATE, generator(0))
