"""Glottal pulses against numerical integration and against their own definition."""

from __future__ import annotations

import numpy as np
import pytest

from glottis.rng import generator
from glottis.synth import source

RATE = 16000


def rng() -> np.random.Generator:
    return generator(0, "test source")


@pytest.mark.parametrize("skew", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("open_seconds", [0.0014, 0.004, 0.011])
def test_pulse_spectrum_equals_the_integral_of_the_flow_derivative(
    skew: float, open_seconds: float
) -> None:
    size = 1024
    spectrum = source.flow_derivative_spectrum(np.array([open_seconds]), skew, RATE, size)[0]
    samples = np.round(open_seconds * RATE * 32) / 32
    u = (np.arange(100_000) + 0.5) / 100_000
    flow = (1 - skew) * (2 * u - 3 * u**2) + skew * (3 * u**2 - 4 * u**3)
    for k in (1, 2, 7, 12, 13, 40, 300, 512):
        expected = samples * np.mean(flow * np.exp(-2j * np.pi * k / size * samples * u))
        assert abs(spectrum[k] - expected) < 1e-5 * np.abs(spectrum).max(), k
    assert spectrum[0] == 0


def test_regular_pulses_come_every_period() -> None:
    pulses = source.pulse_times(np.full(400, 125.0), 80, RATE, 0.0, rng())
    assert np.allclose(np.diff(pulses.times), RATE / 125.0)
    assert np.allclose(pulses.periods_s, 1 / 125.0)
    assert 0 <= pulses.times[0] < RATE / 125.0
    assert pulses.times[-1] <= 400 * 80


def test_pulses_follow_a_gliding_intonation() -> None:
    f0_hz = np.linspace(100.0, 200.0, 401)
    pulses = source.pulse_times(f0_hz, 80, RATE, 0.0, rng())
    middle = 0.5 * (pulses.times[1:] + pulses.times[:-1])
    expected = np.interp(middle / 80, np.arange(401), f0_hz)
    assert np.allclose(RATE / np.diff(pulses.times), expected, rtol=0.01)


def test_jitter_is_the_relative_deviation_of_the_pulse_times() -> None:
    regular = source.pulse_times(np.full(4000, 100.0), 80, RATE, 0.0, rng())
    shaky = source.pulse_times(np.full(4000, 100.0), 80, RATE, 0.01, rng())
    deviation = (shaky.times - regular.times) * 100.0 / RATE
    assert np.std(deviation) == pytest.approx(0.01, rel=0.1)


def test_fractional_delays_turn_the_phase_and_nothing_else() -> None:
    starts, remainder = source.split_times(np.array([0.0, 10.25, 99.5]), 64)
    assert starts.tolist() == [0, 10, 99]
    assert np.allclose(np.abs(remainder), 1.0, atol=1e-6)
    bins = np.arange(33)
    assert np.allclose(remainder[1], np.exp(-2j * np.pi * bins / 64 * 0.25), atol=1e-6)


def test_glottis_is_open_for_the_open_quotient() -> None:
    pulses = source.pulse_times(np.full(800, 120.0), 80, RATE, 0.0, rng())
    opened = source.open_phase(pulses, 0.6, 64000, RATE)
    assert set(np.unique(opened)) == {0.0, 1.0}
    assert opened.mean() == pytest.approx(0.6, abs=0.02)


def test_no_pulse_means_a_closed_glottis() -> None:
    none = source.Pulses(np.zeros(0), np.zeros(0))
    assert not source.open_phase(none, 0.6, 100, RATE).any()
