"""Envelopes of known signals, and buzz and hiss that have them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from glottis.rng import generator
from glottis.synth import vocoder
from glottis.synth.articulation import FRAME_HOP, SAMPLE_RATE

NUM_SAMPLES = 48000
NUM_FRAMES = NUM_SAMPLES // FRAME_HOP + 1
POLES = signal.zpk2tf(
    [], 0.95 * np.exp(1j * np.pi * np.array([0.1, -0.1, 0.35, -0.35, 0.6, -0.6])), 1.0
)[1].real
TRUTH = 1 / np.abs(signal.freqz(POLES, worN=257, include_nyquist=True)[1])


def resonant_noise() -> np.ndarray:
    white = generator(0, "test vocoder").standard_normal(NUM_SAMPLES)
    return signal.lfilter([1.0], POLES, white)


def decibel_error(envelope: np.ndarray) -> np.ndarray:
    return 20 * np.log10(envelope[20:-20] / TRUTH)


def test_amplitude_density_of_white_noise_is_one() -> None:
    white = generator(0, "test white").standard_normal(NUM_SAMPLES)
    spectra = vocoder.amplitude_spectra(white, NUM_FRAMES)
    assert spectra.shape == (NUM_FRAMES, 257)
    assert np.sqrt(np.mean(spectra[5:-5] ** 2)) == pytest.approx(1.0, rel=0.02)


def test_linear_prediction_finds_the_poles_of_a_resonant_noise() -> None:
    envelope = vocoder.linear_prediction_envelope(
        vocoder.amplitude_spectra(resonant_noise(), NUM_FRAMES), 8
    )
    assert np.max(np.abs(np.median(decibel_error(envelope), axis=0))) < 1.5


def test_cepstral_envelope_follows_the_resonances() -> None:
    envelope = vocoder.cepstral_envelope(
        vocoder.amplitude_spectra(resonant_noise(), NUM_FRAMES), 48
    )
    assert np.median(np.abs(np.median(decibel_error(envelope), axis=0))) < 1.5


@pytest.mark.parametrize("order", [20, 48])
def test_envelopes_keep_the_power_of_every_frame(order: int) -> None:
    spectra = vocoder.amplitude_spectra(resonant_noise(), NUM_FRAMES)
    for envelope in (
        vocoder.cepstral_envelope(spectra, order),
        vocoder.linear_prediction_envelope(spectra, order),
    ):
        assert np.allclose(np.mean(envelope**2, axis=1), np.mean(spectra**2, axis=1), rtol=1e-3)


def test_envelopes_of_silence_are_finite() -> None:
    silent = vocoder.amplitude_spectra(np.zeros(8000), 101)
    assert np.isfinite(vocoder.cepstral_envelope(silent, 32)).all()
    assert np.isfinite(vocoder.linear_prediction_envelope(silent, 16)).all()


def test_hiss_has_the_spectrum_of_its_envelope() -> None:
    envelope = np.broadcast_to(TRUTH, (NUM_FRAMES, 257))
    sound = vocoder.hiss(envelope, NUM_SAMPLES, generator(0, "test hiss"))
    measured = np.sqrt(np.mean(vocoder.amplitude_spectra(sound, NUM_FRAMES)[5:-5] ** 2, axis=0))
    assert np.median(np.abs(20 * np.log10(measured / TRUTH))) < 1.0


@pytest.mark.parametrize("phase", ["minimum", "fixed"])
def test_buzz_is_harmonic_with_the_power_of_its_envelope(phase: str) -> None:
    f0_hz, voiced = np.full(NUM_FRAMES, 125.0), np.ones(NUM_FRAMES, bool)
    flat = np.full((NUM_FRAMES, 257), 0.1)
    rng = generator(0, "test buzz")
    sound = vocoder.buzz(flat, f0_hz, voiced, NUM_SAMPLES, rng, phase)[4000:-4000]
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.1, rel=0.03)
    spectrum = np.abs(np.fft.rfft(sound[:32000] * np.hanning(32000)))
    harmonics = spectrum[250:15000:250]  # 125 Hz apart at 0.5 Hz per bin
    between = spectrum[375:15000:250]
    assert harmonics.min() > 100 * between.max()


@pytest.mark.parametrize("phase", ["minimum", "fixed"])
def test_buzz_is_silent_where_nothing_is_voiced(phase: str) -> None:
    voiced = np.zeros(NUM_FRAMES, bool)
    voiced[200:400] = True
    flat = np.ones((NUM_FRAMES, 257))
    rng = generator(0, "test unvoiced")
    sound = vocoder.buzz(flat, np.full(NUM_FRAMES, 100.0), voiced, NUM_SAMPLES, rng, phase)
    assert np.abs(sound[: 200 * FRAME_HOP - 512]).max() < 1e-3
    assert np.abs(sound[400 * FRAME_HOP + 1024 :]).max() < 1e-3
    assert np.std(sound[210 * FRAME_HOP : 390 * FRAME_HOP]) > 0.5


def test_buzz_repeats_exactly_every_period() -> None:
    flat = np.ones((NUM_FRAMES, 257))
    voiced = np.ones(NUM_FRAMES, bool)
    rng = generator(0, "test period")
    sound = vocoder.buzz(flat, np.full(NUM_FRAMES, 100.0), voiced, NUM_SAMPLES, rng, "minimum")
    period = SAMPLE_RATE // 100
    assert np.allclose(sound[2000:20000], sound[2000 + period : 20000 + period], atol=1e-4)
