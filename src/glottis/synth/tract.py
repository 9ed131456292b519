"""Time-varying filters by overlap-add of filtered grains.

A grain is a short piece of excitation (one glottal pulse, one windowed stretch of noise) with its
own filter; grains are filtered in the frequency domain and added at their positions.  Between
grains nothing has to be interpolated: neighbours overlap.  All grains are one FFT.

Shapes: N grains, K resonances, F bins of the real FFT.
"""

from __future__ import annotations

import numpy as np
from scipy import fft


def resonator_polynomial(
    frequencies_hz: np.ndarray, bandwidths_hz: np.ndarray, sample_rate: int
) -> np.ndarray:
    """(N, K) frequencies and bandwidths -> (N, 2K+1): the product of K second-order sections."""
    radius = np.exp(-np.pi * bandwidths_hz / sample_rate)
    linear = -2.0 * radius * np.cos(2.0 * np.pi * frequencies_hz / sample_rate)  # (N, K)
    square = radius**2
    count, sections = frequencies_hz.shape
    polynomial = np.zeros((count, 2 * sections + 1))
    polynomial[:, 0] = 1.0
    for k in range(sections):
        before = polynomial.copy()
        polynomial[:, 1:] += linear[:, k, None] * before[:, :-1]
        polynomial[:, 2:] += square[:, k, None] * before[:, :-2]
    return polynomial


def multiply(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Products of polynomials row by row: (N, P), (N, Q) -> (N, P+Q-1)."""
    product = np.zeros((len(first), first.shape[1] + second.shape[1] - 1))
    for power in range(second.shape[1]):
        product[:, power : power + first.shape[1]] += first * second[:, power, None]
    return product


def response(polynomial: np.ndarray, fft_size: int) -> np.ndarray:
    """(N, P) coefficients in powers of 1/z -> (N, F) complex64, one at zero frequency.

    One over the response of `resonator_polynomial` is Klatt's cascade of resonators with unit gain
    at zero frequency (JASA 1980, equations 1-3).
    """
    # float64: low poles make the sum of the coefficients small against the coefficients
    scaled = polynomial / polynomial.sum(axis=1, keepdims=True)
    if polynomial.shape[1] != 3:
        values: np.ndarray = fft.rfft(scaled, fft_size, axis=1)
        return values.astype(np.complex64)
    delay = np.exp(-2j * np.pi / fft_size * np.arange(fft_size // 2 + 1)).astype(np.complex64)
    a, b, c = (scaled[:, k : k + 1].astype(np.float32) for k in range(3))
    return np.asarray(a + delay * (b + c * delay))


def place_grains(grains: np.ndarray, starts: np.ndarray, num_samples: int) -> np.ndarray:
    """Add the grains (N, G) into a signal of ``num_samples`` at integer ``starts`` (N,).

    Parts before the start or after the end of the signal are dropped.
    """
    length = grains.shape[1]
    signal = np.zeros(num_samples + 2 * length)
    for grain, start in zip(grains, (starts + length).tolist(), strict=True):
        if 0 <= start <= num_samples + length:
            signal[start : start + length] += grain
    return signal[length : length + num_samples]


def frame(signal: np.ndarray, hop: int, length: int, num_frames: int) -> np.ndarray:
    """(S,) -> (T, length): frame t is centred at sample ``t * hop``; zeros outside the signal."""
    padded = np.zeros((num_frames - 1) * hop + length)
    lead = length // 2
    usable = min(len(signal), len(padded) - lead)
    padded[lead : lead + usable] = signal[:usable]
    view = np.lib.stride_tricks.sliding_window_view(padded, length)
    return view[::hop][:num_frames]


def overlap_add(frames: np.ndarray, hop: int, num_samples: int, lead: int) -> np.ndarray:
    """(T, L) frames -> (S,): the sum of all frames, frame t starting at ``t * hop - lead``."""
    num_frames, length = frames.shape
    rows = -(-length // hop)
    if rows * hop != length:
        frames = np.pad(frames, ((0, 0), (0, rows * hop - length)))
    blocks = np.zeros((num_frames + rows - 1, hop))
    pieces = frames.reshape(num_frames, rows, hop)
    for row in range(rows):
        blocks[row : row + num_frames] += pieces[:, row]
    signal = blocks.ravel()[lead : lead + num_samples]
    return np.pad(signal, (0, num_samples - len(signal)))
