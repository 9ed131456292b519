"""Noise from nothing: hiss, hum, clicks, babble, music: everything works without a corpus.

Every function is a pure function of the generator it is given.  S samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from glottis.augment._rooms import simulate_room
from glottis.errors import ConfigError

__all__ = ["NOISE_KINDS", "simulate_noise", "simulate_room"]

Array = NDArray[np.float64]
Maker = Callable[[int, int, np.random.Generator], Array]

_LOWEST_HZ = 20.0  # coloured noise is flat below
_ENVELOPE_RATE = 50
_DISPERSION_S = 0.006  # delay of the highest against the lowest frequency in a voice pulse


def simulate_noise(
    kind: str, num_samples: int, sample_rate: int, rng: np.random.Generator
) -> Array:
    """(S,) float64 noise with RMS 1.

    kind: one of `NOISE_KINDS`.
    """
    if kind not in _MAKERS:
        raise ConfigError(
            f"there is no simulated noise '{kind}'", fix=f"choose from {', '.join(NOISE_KINDS)}"
        )
    return _unit(_MAKERS[kind](num_samples, sample_rate, rng))


def _unit(samples: Array) -> Array:
    return samples / max(float(np.sqrt(np.mean(samples**2))), 1e-12)


def _shaped(samples: Array, sample_rate: int, gain: Callable[[Array], NDArray[Any]]) -> Array:
    """The samples filtered by gain(hz), as one FFT."""
    size = fft.next_fast_len(len(samples), real=True)
    hz = fft.rfftfreq(size, 1.0 / sample_rate)
    filtered: Array = fft.irfft(fft.rfft(samples, size) * gain(hz), size)[: len(samples)]
    return filtered


def _coloured(exponent: float) -> Maker:
    """Power falling as f ** -exponent: 0 white, 1 pink, 2 brown."""

    def make(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Array:
        white = rng.standard_normal(num_samples)
        if exponent == 0:
            return white
        return _shaped(white, sample_rate, lambda hz: np.maximum(hz, _LOWEST_HZ) ** (-exponent / 2))

    return make


def _hum(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Array:
    """Mains hum: 50 or 60 Hz with many harmonics, slowly swelling, over faint pink noise."""
    base = float(rng.choice([50.0, 60.0])) * (1.0 + 2e-4 * rng.standard_normal())
    count = int(rng.integers(6, 25))
    levels = rng.uniform(0.1, 1.0, count) / np.arange(1, count + 1)
    tone = _harmonics(base * np.arange(num_samples) / sample_rate, levels, rng)
    swell = 1.0 + 0.1 * _slow(num_samples, sample_rate, rng, 0.1, 0.5)
    return _unit(tone * swell) + 0.1 * _unit(_coloured(1.0)(num_samples, sample_rate, rng))


def _harmonics(cycles: Array, levels: Array, rng: np.random.Generator) -> Array:
    """Sum of levels[k] sin(2 pi (k + 1) cycles + a random phase)."""
    turn = np.exp(2j * np.pi * cycles)
    power, total = turn.copy(), np.zeros(len(cycles))
    for level, phase in zip(levels, rng.uniform(0.0, 2 * np.pi, len(levels)), strict=True):
        total += np.imag(level * np.exp(1j * phase) * power)
        power *= turn
    return total


def _clicks(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Array:
    """Knocks and keys: a few decaying resonances struck at random times, over faint hiss."""
    ring = np.arange(int(0.05 * sample_rate)) / sample_rate
    per_second = rng.uniform(2.0, 10.0)
    total = np.zeros(num_samples + len(ring))
    for _ in range(3):
        decay, hz = rng.uniform(0.001, 0.012), rng.uniform(300.0, 0.4 * sample_rate)
        body = np.exp(-ring / decay) * np.sin(2 * np.pi * hz * ring + rng.uniform(0, 2 * np.pi))
        count = max(1, int(rng.poisson(per_second / 3 * num_samples / sample_rate)))
        for start in rng.integers(0, num_samples, count):
            total[start : start + len(ring)] += rng.lognormal(0.0, 0.7) * body
    hiss = rng.standard_normal(num_samples)  # no stretch may be digitally silent
    return _unit(total[:num_samples]) + 0.02 * hiss


def _talker(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Array:
    """One unintelligible voice: a wandering pulse train and breath, in syllables, speech-shaped."""
    time = np.arange(num_samples) / sample_rate
    pitch = rng.uniform(85.0, 240.0) * np.exp(0.12 * _slow(num_samples, sample_rate, rng, 0.2, 2.0))
    cycles = np.cumsum(pitch) / sample_rate
    pulses = np.diff(np.floor(cycles), prepend=0.0)
    carrier = _unit(pulses - pulses.mean()) + 0.35 * rng.standard_normal(num_samples)
    tilt = rng.uniform(1.3, 1.9)
    formants = rng.uniform([300.0, 900.0, 2200.0], [800.0, 2000.0, 3200.0])

    def speech(hz: Array) -> NDArray[Any]:
        shape = hz / (hz + 80.0) / (1.0 + (hz / 500.0) ** tilt)
        for centre in formants:
            shape = shape * (1.0 + 2.0 * np.exp(-(((hz - centre) / (0.12 * centre + 60.0)) ** 2)))
        return np.asarray(shape * np.exp(-1j * np.pi * _DISPERSION_S * hz**2 / (0.5 * sample_rate)))

    syllables = np.maximum(_slow(num_samples, sample_rate, rng, 2.0, 6.0) + 0.3, 0.0)
    phrases = np.clip(_slow(num_samples, sample_rate, rng, 0.1, 0.6) + 1.0, 0.0, 1.0)
    fade = np.minimum(1.0, np.minimum(time + 0.05, time[::-1] + 0.05) / 0.05)
    return _shaped(carrier, sample_rate, speech) * (0.02 + syllables * phrases) * fade


def _slow(
    num_samples: int, sample_rate: int, rng: np.random.Generator, low_hz: float, high_hz: float
) -> Array:
    """Gaussian noise between two low frequencies, variance about 1: an envelope."""
    count = num_samples * _ENVELOPE_RATE // sample_rate + 20 * _ENVELOPE_RATE
    band = _shaped(
        rng.standard_normal(count),
        _ENVELOPE_RATE,
        lambda hz: ((hz >= low_hz) & (hz <= high_hz)).astype(np.float64),
    )
    times = np.arange(num_samples) * (_ENVELOPE_RATE / sample_rate)
    times += rng.uniform(0, _ENVELOPE_RATE)
    return np.asarray(np.interp(times, np.arange(count), _unit(band)), np.float64)


def _babble(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Array:
    """Five to eight talkers at once."""
    voices = [_unit(_talker(num_samples, sample_rate, rng)) for _ in range(rng.integers(5, 9))]
    return np.asarray(np.sum(voices, axis=0))


def _music(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Array:
    """Plucked chords from a pentatonic scale, some harmonics per note."""
    beat = int(sample_rate * rng.uniform(0.2, 0.5))
    root = rng.uniform(90.0, 180.0)
    scale = 2.0 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16, 19, 21]) / 12.0)
    length = 4 * beat
    time = np.arange(length) / sample_rate
    attack = np.minimum(1.0, time / 0.008)
    total = np.zeros(num_samples + length)
    for start in range(0, num_samples, beat):
        for degree in rng.choice(len(scale), int(rng.integers(1, 4)), replace=False):
            decay = np.exp(-time / rng.uniform(0.15, 0.8))
            hz = root * scale[degree]
            order = np.arange(1, 7)
            levels = rng.uniform(0.3, 1.0, 6) / order**1.2 * (order * hz < 0.45 * sample_rate)
            note = _harmonics(hz * time, levels, rng)
            total[start : start + length] += rng.uniform(0.4, 1.0) * attack * decay * note
    return total[:num_samples]


_MAKERS: dict[str, Maker] = {
    "white": _coloured(0.0),
    "pink": _coloured(1.0),
    "brown": _coloured(2.0),
    "hum": _hum,
    "clicks": _clicks,
    "babble": _babble,
    "talker": _talker,
    "music": _music,
}
NOISE_KINDS = tuple(_MAKERS)
