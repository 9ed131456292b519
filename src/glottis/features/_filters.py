"""Tables of the front ends, computed in float64: mel scales, triangular filters, cosines, windows.

Shapes: F filters, bins = fft_size / 2 + 1, C coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glottis.errors import ConfigError

Array = NDArray[np.float64]
MelScale = Literal["htk", "slaney"]
Scale = Callable[[Array], Array]


def hz_to_mel(hz: Array) -> Array:
    """2595 log10(1 + f / 700) (HTK)."""
    return 2595.0 * np.log10(1.0 + hz / 700.0)


def mel_to_hz(mel: Array) -> Array:
    """Inverse of `hz_to_mel`."""
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


_SLANEY_LINEAR = 200.0 / 3.0  # Hz per mel below 1 kHz
_SLANEY_STEP = math.log(6.4) / 27.0  # logarithmic above: 27 steps up to 6.4 kHz


def hz_to_slaney(hz: Array) -> Array:
    """Linear below 1 kHz, logarithmic above (Slaney, "Auditory Toolbox", 1998)."""
    above = 15.0 + np.log(np.maximum(hz, 1000.0) / 1000.0) / _SLANEY_STEP
    return np.where(hz < 1000.0, hz / _SLANEY_LINEAR, above)


def slaney_to_hz(mel: Array) -> Array:
    """Inverse of `hz_to_slaney`."""
    above = 1000.0 * np.exp((np.maximum(mel, 15.0) - 15.0) * _SLANEY_STEP)
    return np.where(mel < 15.0, mel * _SLANEY_LINEAR, above)


_SCALES: dict[str, tuple[Scale, Scale]] = {
    "htk": (hz_to_mel, mel_to_hz),
    "slaney": (hz_to_slaney, slaney_to_hz),
}


def mel_corners(num_filters: int, low_hz: float, high_hz: float, scale: MelScale) -> Array:
    """(F + 2,) corner frequencies in Hz, equally spaced on the mel scale."""
    forward, backward = _SCALES[scale]
    low, high = forward(np.array([low_hz, high_hz]))
    return backward(np.linspace(low, high, num_filters + 2))


def triangles(corners: Array, points: Array) -> Array:
    """(F, P) triangular filters between neighbouring corners, sampled at these points.

    Filter i rises from corner i to 1 at corner i+1 and falls to 0 at corner i+2.
    """
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = (points[None, :] - left) / (centre - left)
    falling = (right - points[None, :]) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling))


def even_triangles(corners: Array, points: Array) -> Array:
    """`triangles` whose right side is a mirror image of the left one."""
    left, centre = corners[:-2, None], corners[1:-1, None]
    return np.maximum(0.0, 1.0 - np.abs(points[None, :] - centre) / (centre - left))


def mel_filters(
    num_filters: int,
    fft_size: int,
    sample_rate: int,
    low_hz: float,
    high_hz: float,
    *,
    scale: MelScale = "htk",
    area_norm: bool = False,
    symmetric: bool = False,
) -> Array:
    """(F, bins) mel filters whose triangles are straight in Hz.

    area_norm: divide each by half of its width in Hz (Slaney), so that all have one area.
    symmetric: each filter falls as steeply as it rises, and ends before the peak of the next one.
    """
    check_band(low_hz, high_hz, sample_rate)
    corners = mel_corners(num_filters, low_hz, high_hz, scale)
    points = bin_hz(fft_size, sample_rate)
    filters = even_triangles(corners, points) if symmetric else triangles(corners, points)
    require_filled(filters, fft_size)
    return filters * (2.0 / (corners[2:] - corners[:-2]))[:, None] if area_norm else filters


def linear_filters(
    num_filters: int, fft_size: int, sample_rate: int, low_hz: float, high_hz: float
) -> Array:
    """(F, bins) triangular filters equally spaced in Hz, peak 1."""
    check_band(low_hz, high_hz, sample_rate)
    corners = np.linspace(low_hz, high_hz, num_filters + 2)
    filters = triangles(corners, bin_hz(fft_size, sample_rate))
    require_filled(filters, fft_size)
    return filters


def bin_hz(fft_size: int, sample_rate: int) -> Array:
    """(bins,) frequencies of a real FFT."""
    return np.linspace(0.0, sample_rate / 2, fft_size // 2 + 1)


def cosine_matrix(num_coefficients: int, num_filters: int) -> Array:
    """(C, F) orthonormal DCT-II: the first C rows."""
    if num_coefficients > num_filters:
        raise ConfigError(
            f"num_coefficients {num_coefficients} is more than the {num_filters} filters",
            fix="ask for at most as many coefficients as there are filters",
        )
    rows = np.arange(num_coefficients)[:, None]
    table = np.cos(np.pi * rows * (np.arange(num_filters)[None, :] + 0.5) / num_filters)
    scale = np.where(rows == 0, 1.0 / num_filters, 2.0 / num_filters)
    return table * np.sqrt(scale)


def window_table(kind: str, size: int, *, periodic: bool) -> Array:
    """(size,) hamming (0.54, 0.46), hann, or povey = hann ** 0.85 as in Kaldi."""
    phase = 2.0 * np.pi * np.arange(size) / (size if periodic else size - 1)
    if kind == "hamming":
        return 0.54 - 0.46 * np.cos(phase)
    hann = 0.5 - 0.5 * np.cos(phase)
    return hann**0.85 if kind == "povey" else hann


def check_band(low_hz: float, high_hz: float, sample_rate: int) -> None:
    """Raise ConfigError unless 0 <= low < high <= sample_rate / 2."""
    if not low_hz < high_hz <= sample_rate / 2:
        raise ConfigError(
            f"the band {low_hz:g}..{high_hz:g} Hz does not fit a sample rate of {sample_rate} Hz",
            fix=f"choose low_hz < high_hz <= {sample_rate / 2:g}",
        )


def require_filled(filters: Array, fft_size: int) -> None:
    """Raise ConfigError if a filter lies between two bins and would always give zero."""
    empty = np.flatnonzero(filters.sum(axis=1) == 0.0)
    if len(empty):
        raise ConfigError(
            f"{len(empty)} of {len(filters)} filters hold no FFT bin (the first is {empty[0]})",
            why="such a feature is constant: a dead input of the network",
            fix=f"fewer filters, a higher low_hz, or fft_size {2 * fft_size}",
        )
