"""The glottal source: when the pulses come and what one pulse looks like.

Flow of one pulse over its open phase u in 0..1: ``u^2 - u^3`` (KLGLOTT88; Klatt and Klatt,
"Analysis, synthesis, and perception of voice quality variations", JASA 1990) mixed with the later
peaked ``u^3 - u^4``; the excitation is its derivative.  The spectrum is written in closed form, so
that pulses sit between samples and do not alias.  A one-pole low-pass is the spectral tilt.

Shapes: N pulses, F bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

_STEPS = 32  # positions between two samples
_LOW_BINS = 12


@dataclass(frozen=True)
class Pulses:
    """Closures of the glottis: times in samples and periods in seconds, both (N,)."""

    times: np.ndarray
    periods_s: np.ndarray


def pulse_times(
    f0_hz: np.ndarray, hop: int, sample_rate: int, jitter: float, rng: np.random.Generator
) -> Pulses:
    """Pulses of an F0 track (T,) with one value per ``hop`` samples.

    jitter: standard deviation of a pulse's time relative to its period.
    """
    phase = np.concatenate([[0.0], np.cumsum(f0_hz * (hop / sample_rate))])  # cycles
    grid = np.arange(len(phase)) * float(hop)
    counts = np.arange(int(phase[-1])) + rng.random()
    counts = counts[counts < phase[-1]]
    regular = np.interp(counts, phase, grid)
    f0 = np.interp(regular, grid[:-1], f0_hz)
    deviation = np.clip(rng.standard_normal(len(counts)), -3.0, 3.0)
    times = regular + jitter * deviation * sample_rate / f0
    return Pulses(np.maximum(times, 0.0), 1.0 / f0)


def flow_derivative_spectrum(
    open_seconds: np.ndarray, skew: float, sample_rate: int, fft_size: int
) -> np.ndarray:
    """(N,) lengths of the open phase -> (N, F) spectra of the flow derivative, -1 at the closure.

    With x = omega * open_seconds the Fourier integral of a cubic in u is P(1/x) + Q(1/x) exp(-jx),
    P and Q polynomials.
    """
    delay = _quantise(open_seconds * sample_rate)
    weights = (2.0 * (1.0 - skew), 3.0 * (2.0 * skew - 1.0), -4.0 * skew)
    omega = np.arange(1, fft_size // 2 + 1) * (2.0 * np.pi / fft_size)
    x = delay[:, None] / _STEPS * omega
    turns = _turns(delay, fft_size)[:, 1:]
    spectrum = np.zeros((len(x), len(omega) + 1), np.complex64)  # a closed flow: nothing at 0 Hz
    spectrum[:, 1:] = _cubic_integral(x.astype(np.float32), turns.astype(np.complex64), weights)
    # Where x is small the terms cancel: the lowest bins need more digits.
    low = slice(0, _LOW_BINS)
    spectrum[:, 1 : _LOW_BINS + 1] = _cubic_integral(x[:, low], turns[:, low], weights)
    spectrum *= (delay / _STEPS).astype(np.float32)[:, None]
    return spectrum


def _cubic_integral(
    x: np.ndarray, turns: np.ndarray, weights: tuple[float, float, float]
) -> np.ndarray:
    """Integral of ``(w1 u + w2 u^2 + w3 u^3) exp(-jxu)`` over u in 0..1; turns = exp(-jx)."""
    w1, w2, w3 = weights
    y = 1.0 / x
    square = y * y
    cubic = square * y
    total = np.empty(y.shape, turns.dtype)
    total.real = square * ((w1 + 2.0 * w2 + 3.0 * w3) - (6.0 * w3) * square)
    total.imag = (w1 + w2 + w3) * y - (2.0 * w2 + 6.0 * w3) * cubic
    total *= turns
    total.real += square * ((6.0 * w3) * square - w1)
    total.imag += (2.0 * w2) * cubic
    return total


def tilt_polynomial(corner_hz: np.ndarray, sample_rate: int) -> np.ndarray:
    """(N,) corner frequencies -> (N, 2) denominator of a one-pole low-pass in powers of 1/z."""
    pole = np.exp(-2.0 * np.pi * corner_hz / sample_rate)
    return np.stack([np.ones_like(pole), -pole], axis=1)


def split_times(times: np.ndarray, fft_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Times in samples (N,) -> integer starts (N,) and the (N, F) phase of the remainder."""
    steps = _quantise(times)
    return steps // _STEPS, _turns(steps % _STEPS, fft_size).astype(np.complex64)


def _quantise(samples: np.ndarray) -> np.ndarray:
    steps: np.ndarray = np.round(samples * _STEPS).astype(np.int64)
    return steps


def _turns(steps: np.ndarray, fft_size: int) -> np.ndarray:
    """(N,) delays in fractions of a sample -> (N, F) exp(-j omega delay), from a table."""
    table = _unit_circle(fft_size * _STEPS)
    turns = steps[:, None].astype(np.int32) * np.arange(fft_size // 2 + 1, dtype=np.int32)
    return np.asarray(table[np.bitwise_and(turns, len(table) - 1, out=turns)])


@cache
def _unit_circle(size: int) -> np.ndarray:
    assert size & (size - 1) == 0, "the FFT size is a power of two"
    return np.asarray(np.exp(-2j * np.pi / size * np.arange(size)))


def open_phase(
    pulses: Pulses, open_quotient: float, num_samples: int, sample_rate: int
) -> np.ndarray:
    """(S,) 1 where the glottis is open (from a pulse's start), 0 where closed."""
    samples = np.arange(num_samples)
    which = np.clip(np.searchsorted(pulses.times, samples, side="right") - 1, 0, None)
    if not len(pulses.times):
        return np.zeros(num_samples)
    since = (samples - pulses.times[which]) / sample_rate
    opened = (since >= 0) & (since < open_quotient * pulses.periods_s[which])
    return np.asarray(opened, np.float64)
