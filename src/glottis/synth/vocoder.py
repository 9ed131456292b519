"""Analysis and re-synthesis that the simulated attacks share: envelopes in, buzz and hiss out.

An envelope is an amplitude density: white noise of variance one, filtered by it, has the power of
the analysed speech.  Frames are 5 ms apart.

Shapes: T frames, F bins, N pulses.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import fft
from scipy.ndimage import uniform_filter1d

from glottis.synth import source, tract
from glottis.synth.articulation import FRAME_HOP, SAMPLE_RATE

FFT_SIZE = 512
_WINDOW = 400  # 25 ms: some periods of any voice
_FLOOR = 1e-5


def amplitude_spectra(samples: np.ndarray, num_frames: int) -> np.ndarray:
    """(S,) -> (T, F) float32 amplitude densities of Hann-windowed frames of 25 ms."""
    window = np.hanning(_WINDOW + 1)[:-1]
    window /= np.sqrt(np.sum(window**2))
    frames = tract.frame(samples, FRAME_HOP, _WINDOW, num_frames) * window
    return np.asarray(np.abs(fft.rfft(frames.astype(np.float32), FFT_SIZE, axis=1)))


def cepstral_envelope(spectra: np.ndarray, order: int) -> np.ndarray:
    """(T, F) spectra -> (T, F) smooth ones with the same power.

    The power is averaged over 280 Hz, about the distance of harmonics, before the logarithm (after
    it the valleys between harmonics would count most, as in noise they do not); then the first
    ``order`` cepstral coefficients are kept.
    """
    power = uniform_filter1d(spectra**2, 9, axis=1, mode="mirror")
    cepstra = fft.irfft(0.5 * np.log(np.maximum(power, _FLOOR**2)), axis=1)[:, :order]
    cepstra[:, 1:] *= 2.0
    cepstra[:, -(order // 4) :] *= np.linspace(1.0, 0.0, order // 4)
    return same_power(from_cepstra(cepstra), spectra)


def from_cepstra(cepstra: np.ndarray) -> np.ndarray:
    """(T, order) one-sided cepstra (all but the first doubled) -> (T, F) amplitudes."""
    amplitudes: np.ndarray = np.exp(fft.rfft(cepstra, FFT_SIZE, axis=1).real)
    return amplitudes


def same_power(envelope: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """The envelope with every frame scaled to the power of the frame in ``spectra``."""
    wanted = np.mean(spectra**2, axis=1, keepdims=True)
    have = np.maximum(np.mean(envelope**2, axis=1, keepdims=True), _FLOOR**2)
    return np.asarray(envelope * np.sqrt(wanted / have))


def linear_prediction_envelope(spectra: np.ndarray, order: int) -> np.ndarray:
    """(T, F) spectra -> (T, F) all-pole envelopes; Levinson-Durbin on all frames at once.

    Makhoul, "Linear prediction: a tutorial review", Proc. IEEE 1975, equations 38a-e.
    """
    correlation = fft.irfft(spectra.astype(np.float64) ** 2, axis=1)[:, : order + 1]
    # A Gaussian lag window widens the poles by some 40 Hz: a single harmonic is not a resonance.
    correlation *= np.exp(-0.5 * (2.0 * np.pi * 40.0 / SAMPLE_RATE * np.arange(order + 1)) ** 2)
    correlation[:, 0] = correlation[:, 0] * (1.0 + 1e-5) + _FLOOR**2
    polynomial = np.zeros_like(correlation)
    polynomial[:, 0] = 1.0
    error = correlation[:, 0].copy()
    for step in range(1, order + 1):
        inner = np.sum(polynomial[:, :step] * correlation[:, step:0:-1], axis=1)
        reflection = -inner / error
        flipped = polynomial[:, step::-1].copy()
        polynomial[:, : step + 1] += reflection[:, None] * flipped
        error *= 1.0 - reflection**2
    gain = np.sqrt(np.maximum(error, 0.0))[:, None]
    return same_power(gain / np.abs(fft.rfft(polynomial, FFT_SIZE, axis=1)), spectra)


def buzz(
    envelope: np.ndarray,
    f0_hz: np.ndarray,
    voiced: np.ndarray,
    num_samples: int,
    rng: np.random.Generator,
    phase: str,
) -> np.ndarray:
    """One grain per period of ``f0_hz`` (T,) where ``voiced``, all with the same kind of phase.

    The periods have no jitter; ``rng`` decides where the first pulse is.
    phase: "minimum" (all energy as early as it can be) or "fixed" (a slow sweep, whatever the
    tract does).
    """
    pulses = source.pulse_times(f0_hz, FRAME_HOP, SAMPLE_RATE, 0.0, rng)
    rows = np.minimum(np.round(pulses.times / FRAME_HOP).astype(np.int64), len(voiced) - 1)
    keep = voiced[rows]
    rows, times, periods = rows[keep], pulses.times[keep], pulses.periods_s[keep]
    spectra = envelope[rows].astype(np.float32)
    spectra *= np.sqrt(periods * SAMPLE_RATE).astype(np.float32)[:, None]
    starts, remainder = source.split_times(times, FFT_SIZE)
    if phase == "minimum":
        spectra = _minimum_phase(spectra) * _dispersion(0.0, 0.003)
    else:  # symmetric responses: begin early enough that nothing wraps around
        spectra = spectra * _dispersion(0.010, 0.016)
        starts = starts - int(0.013 * SAMPLE_RATE)
    grains = fft.irfft(spectra * remainder, FFT_SIZE, axis=1)
    return tract.place_grains(grains, starts, num_samples)


@cache
def _dispersion(first_s: float, last_s: float) -> np.ndarray:
    """(F,) an all-pass whose delay grows from ``first_s`` to ``last_s`` over the band.

    Without it the pulses would stand out by their peaks alone.
    """
    bins = np.arange(FFT_SIZE // 2 + 1) * (2.0 * np.pi / FFT_SIZE)
    sweep = 0.5 * (last_s - first_s) / np.pi * bins**2
    return np.exp(-1j * SAMPLE_RATE * (first_s * bins + sweep)).astype(np.complex64)


def hiss(envelope: np.ndarray, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """White noise shaped by the envelope (T, F)."""
    window = np.hanning(2 * FRAME_HOP + 1)[:-1]
    white = rng.standard_normal(num_samples)
    frames = tract.frame(white, FRAME_HOP, 2 * FRAME_HOP, len(envelope)) * window
    spectra = fft.rfft(frames.astype(np.float32), FFT_SIZE, axis=1)
    spectra *= envelope
    shaped = fft.irfft(spectra, FFT_SIZE, axis=1)
    return tract.overlap_add(shaped, FRAME_HOP, num_samples, FRAME_HOP)


def _minimum_phase(amplitudes: np.ndarray) -> np.ndarray:
    """(N, F) amplitudes -> (N, F) complex spectra of the causal signal with least delay."""
    cepstra = fft.irfft(np.log(np.maximum(amplitudes, _FLOOR)), axis=1)
    cepstra[:, 1 : FFT_SIZE // 2] *= 2.0
    cepstra[:, FFT_SIZE // 2 + 1 :] = 0.0
    spectra: np.ndarray = np.exp(fft.rfft(cepstra, axis=1))
    return spectra
