"""Filters and overlap-add against textbook versions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from glottis.rng import generator
from glottis.synth import source, tract

RATE = 16000


def test_polynomial_is_the_product_of_resonators() -> None:
    frequencies, bandwidths = np.array([[500.0, 1500.0, 2500.0]]), np.array([[60.0, 90.0, 120.0]])
    product = np.array([1.0])
    for hz, width in zip(frequencies[0], bandwidths[0], strict=True):
        radius = np.exp(-np.pi * width / RATE)
        section = [1.0, -2 * radius * np.cos(2 * np.pi * hz / RATE), radius**2]
        product = np.convolve(product, section)
    assert np.allclose(tract.resonator_polynomial(frequencies, bandwidths, RATE)[0], product)


@pytest.mark.parametrize("sections", [1, 5])
def test_response_equals_the_frequency_response_of_the_polynomial(sections: int) -> None:
    rng = generator(0, "test tract", sections)
    frequencies = rng.uniform(300, 7000, (4, sections))
    polynomial = tract.resonator_polynomial(frequencies, rng.uniform(50, 300, (4, sections)), RATE)
    got = tract.response(polynomial, 512)
    for row in range(4):
        _, expected = signal.freqz(polynomial[row], worN=257, include_nyquist=True)
        assert np.allclose(got[row], expected / expected[0], rtol=1e-3, atol=1e-4)


def test_formant_is_where_the_response_peaks() -> None:
    polynomial = tract.resonator_polynomial(np.array([[1000.0]]), np.array([[60.0]]), RATE)
    gain = 1 / np.abs(tract.response(polynomial, 1024)[0])
    assert np.argmax(gain) * RATE / 1024 == pytest.approx(1000.0, abs=RATE / 1024)


def test_rows_of_polynomials_multiply() -> None:
    rng = generator(0, "test multiply")
    first, second = rng.standard_normal((3, 5)), rng.standard_normal((3, 2))
    product = tract.multiply(first, second)
    for row in range(3):
        assert np.allclose(product[row], np.convolve(first[row], second[row]))


def test_grains_are_added_at_their_places_and_cut_at_the_ends() -> None:
    rng = generator(0, "test grains")
    grains = rng.standard_normal((6, 10))
    starts = np.array([-10, -4, 0, 3, 25, 40])
    expected = np.zeros(30)
    for grain, start in zip(grains, starts, strict=True):
        for offset, value in enumerate(grain):
            if 0 <= start + offset < 30:
                expected[start + offset] += value
    assert np.allclose(tract.place_grains(grains, starts, 30), expected)


@pytest.mark.parametrize("num_samples", [999, 1000, 1600, 1601])
def test_windowed_frames_add_up_to_the_signal(num_samples: int) -> None:
    wave = generator(0, "test frames").standard_normal(num_samples)
    window = np.hanning(161)[:-1]
    frames = tract.frame(wave, 80, 160, num_samples // 80 + 2) * window
    assert np.allclose(tract.overlap_add(frames, 80, num_samples, 80), wave)


def test_frames_are_centred_on_their_times() -> None:
    wave = np.arange(1.0, 1001.0)
    frames = tract.frame(wave, 80, 160, 13)
    assert frames.shape == (13, 160)
    assert np.array_equal(frames[5], wave[320:480])
    assert np.array_equal(frames[0], np.concatenate([np.zeros(80), wave[:80]]))
    assert np.array_equal(frames[12], np.concatenate([wave[880:], np.zeros(40)]))


def test_tilt_falls_by_three_decibels_at_its_corner() -> None:
    gain = 1 / np.abs(tract.response(source.tilt_polynomial(np.array([1000.0]), RATE), 1024)[0])
    assert 20 * np.log10(gain[64]) == pytest.approx(-3.0, abs=0.4)
    assert np.all(np.diff(gain) < 0)
