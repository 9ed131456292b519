"""Impulse responses of shoebox rooms: image sources first, then an exponentially decaying tail.

Allen and Berkley, "Image method for efficiently simulating small-room acoustics", JASA 65, 1979;
the tail is Gaussian noise under the decay that the reverberation time asks for (Moorer, "About this
reverberation business", 1979), as loud as the images it takes over from.  Walls reflect all
frequencies alike and the air absorbs nothing: good for augmentation, not for architects.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glottis.errors import ConfigError

Array = NDArray[np.float64]

SPEED_OF_SOUND = 343.0  # m/s at 20 degrees
_MIXING_S = 0.05  # after this single reflections are no longer told apart
_FADE_S = 0.01
_HALF_SINC = 16  # samples on each side of a reflection


def simulate_room(
    sample_rate: int,
    rt60_s: float,
    direct_to_reverberant_db: float | None,
    rng: np.random.Generator,
) -> Array:
    """(S,) impulse response of a random room; the direct sound is sample 0 and has amplitude 1.

    rt60_s: time in which the energy falls by 60 dB.
    direct_to_reverberant_db: energy of sample 0 over the energy of all others; None keeps what the
    drawn room and distance give.
    """
    if not 0.05 <= rt60_s <= 5.0:
        raise ConfigError(
            f"a reverberation time of {rt60_s:g} s cannot be simulated", fix="choose 0.05 to 5 s"
        )
    size = rng.uniform([2.5, 2.2, 2.2], [9.0, 7.0, 3.6])
    microphone = size * rng.uniform(0.2, 0.8, 3)
    source = size * rng.uniform(0.2, 0.8, 3)
    while np.linalg.norm(source - microphone) < 0.25:
        source = size * rng.uniform(0.2, 0.8, 3)
    walls = np.clip(_reflection(size, rt60_s) * rng.uniform(0.85, 1.15, (3, 2)), 0.05, 0.98)
    delays, gains = image_sources(size, source, microphone, walls, _MIXING_S + _FADE_S)
    early = place(delays * sample_rate, gains, int((_MIXING_S + _FADE_S) * sample_rate))
    response = _with_tail(early, sample_rate, rt60_s, rng)
    if direct_to_reverberant_db is not None:
        rest = float(np.sum(response[1:] ** 2))
        response[1:] *= np.sqrt(10.0 ** (-direct_to_reverberant_db / 10.0) / rest)
    return response


def _reflection(size: Array, rt60_s: float) -> float:
    """Amplitude reflection of all walls for this reverberation time (Eyring's formula)."""
    volume = float(np.prod(size))
    surface = 2.0 * float(size[0] * size[1] + size[1] * size[2] + size[0] * size[2])
    return float(np.exp(-0.5 * 0.161 * volume / (surface * rt60_s)))


def image_sources(
    size: Array, source: Array, microphone: Array, walls: Array, seconds: float
) -> tuple[Array, Array]:
    """Delays (s) and gains of all images up to ``seconds`` after the direct sound, relative to it.

    size, source, microphone: (3,) in metres.  walls: (3, 2) amplitude reflections of the wall at 0
    and of the wall at ``size`` of each axis.
    """
    direct = float(np.linalg.norm(source - microphone))
    reach = direct + seconds * SPEED_OF_SOUND
    offsets, factors = [], []
    for axis in range(3):
        turns = np.arange(-_turns(reach, size[axis]), _turns(reach, size[axis]) + 1)
        even = 2.0 * turns * size[axis] + source[axis]
        odd = 2.0 * turns * size[axis] - source[axis]
        low, high = walls[axis]
        gain_even = low ** np.abs(turns) * high ** np.abs(turns)
        gain_odd = low ** np.abs(turns - 1) * high ** np.abs(turns)
        offsets.append(np.concatenate([even, odd]) - microphone[axis])
        factors.append(np.concatenate([gain_even, gain_odd]))
    square = np.add.outer(np.add.outer(offsets[0] ** 2, offsets[1] ** 2), offsets[2] ** 2)
    distance = np.sqrt(square).ravel()
    gain = np.multiply.outer(np.multiply.outer(factors[0], factors[1]), factors[2]).ravel()
    near = distance <= reach
    delays = (distance[near] - direct) / SPEED_OF_SOUND
    return delays, gain[near] * direct / distance[near]


def _turns(reach: float, length: float) -> int:
    return int(np.ceil(reach / (2.0 * length))) + 1


def place(positions: Array, gains: Array, num_samples: int) -> Array:
    """(num_samples,) with a band-limited impulse of each gain at each fractional position."""
    whole = np.floor(positions).astype(np.int64)
    taps = np.arange(-_HALF_SINC + 1, _HALF_SINC + 1)
    distance = taps[None, :] - (positions - whole)[:, None]
    window = 0.5 + 0.5 * np.cos(np.pi * distance / _HALF_SINC)
    weights = gains[:, None] * np.sinc(distance) * window
    index = whole[:, None] + taps[None, :] + _HALF_SINC
    inside = index < num_samples + _HALF_SINC
    response = np.zeros(num_samples + _HALF_SINC)
    np.add.at(response, index[inside], weights[inside])
    return response[_HALF_SINC:]  # the feet of very early reflections before the direct sound go


def _with_tail(early: Array, sample_rate: int, rt60_s: float, rng: np.random.Generator) -> Array:
    """The images, cross-faded into noise of the same energy that goes on decaying."""
    total = max(len(early), int(rt60_s * sample_rate))
    decay = 10.0 ** (-3.0 * np.arange(total) / (rt60_s * sample_rate))
    noise = rng.standard_normal(total) * decay
    start, stop = int(_MIXING_S * sample_rate), int((_MIXING_S + _FADE_S) * sample_rate)
    window = slice(start - (stop - start), stop)
    level = np.sqrt(np.mean(early[window] ** 2) / np.mean(decay[window] ** 2))
    rise = np.clip((np.arange(total) - start) / (stop - start), 0.0, 1.0)
    response: Array = level * noise * np.sqrt(rise)
    response[: len(early)] += early * np.sqrt(1.0 - rise[: len(early)])
    response[0] = 1.0
    return response
