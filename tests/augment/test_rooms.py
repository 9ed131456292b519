"""Simulated rooms: reverberation time, direct sound, image sources."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from glottis.augment import simulate_room
from glottis.augment._rooms import SPEED_OF_SOUND, image_sources, place
from glottis.errors import ConfigError
from glottis.rng import generator

RATE = 16000


def decay_time(response: np.ndarray) -> float:
    """Reverberation time from the -5..-25 dB stretch of the backward-integrated energy."""
    energy = np.cumsum(response[::-1] ** 2)[::-1]
    level = 10 * np.log10(energy / energy[0] + 1e-12)
    start, stop = int(np.argmax(level < -5)), int(np.argmax(level < -25))
    return 3.0 * (stop - start) / RATE


@pytest.mark.parametrize("rt60_s", [0.2, 0.4, 0.8])
def test_reverberation_time_is_the_one_asked_for(rt60_s: float) -> None:
    times = [decay_time(simulate_room(RATE, rt60_s, None, generator(i))) for i in range(12)]
    assert np.mean(times) == pytest.approx(rt60_s, rel=0.1)
    assert np.max(np.abs(np.array(times) / rt60_s - 1.0)) < 0.3


@pytest.mark.parametrize("ratio_db", [-5.0, 0.0, 15.0])
def test_direct_sound_comes_first_with_the_ratio_asked_for(ratio_db: float) -> None:
    for seed in range(5):
        response = simulate_room(RATE, 0.4, ratio_db, generator(seed))
        assert response[0] == 1.0
        assert -10 * np.log10(np.sum(response[1:] ** 2)) == pytest.approx(ratio_db, abs=1e-6)
        assert np.isfinite(response).all()


def test_a_room_is_a_function_of_its_generator() -> None:
    one, two = (simulate_room(RATE, 0.3, None, generator(7)) for _ in range(2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, simulate_room(RATE, 0.3, None, generator(8)))


def test_image_sources_equal_a_count_one_by_one() -> None:
    size, source = np.array([3.0, 4.0, 2.5]), np.array([1.0, 1.5, 1.2])
    microphone, walls = np.array([2.2, 3.1, 1.6]), np.array([[0.5, 0.6], [0.7, 0.8], [0.9, 0.4]])
    seconds = 0.015
    direct = np.linalg.norm(source - microphone)
    expected = []
    turns = range(-4, 5)
    for n in itertools.product(turns, turns, turns):
        for odd in itertools.product((0, 1), repeat=3):
            image = [
                (1 - 2 * odd[a]) * source[a] + 2 * n[a] * size[a] - microphone[a] for a in range(3)
            ]
            distance = float(np.linalg.norm(image))
            gain = direct / distance
            for a in range(3):
                gain *= walls[a, 0] ** abs(n[a] - odd[a]) * walls[a, 1] ** abs(n[a])
            if (distance - direct) / SPEED_OF_SOUND <= seconds:
                expected.append(((distance - direct) / SPEED_OF_SOUND, gain))
    delays, gains = image_sources(size, source, microphone, walls, seconds)
    found = sorted(zip(delays.round(9), gains, strict=True))  # rounded: several are equally far
    assert len(found) == len(expected) > 20
    assert np.allclose(found, sorted((round(delay, 9), gain) for delay, gain in expected))


def test_the_nearest_wall_answers_first() -> None:
    """One reflecting wall: the mirror image, 2 d / c later when source and microphone coincide."""
    size, spot = np.array([10.0, 10.0, 10.0]), np.array([1.0, 5.0, 5.0])
    walls = np.array([[0.8, 0.0], [0.0, 0.0], [0.0, 0.0]])
    delays, gains = image_sources(size, spot, spot + np.array([0.5, 0.0, 0.0]), walls, 0.1)
    kept = gains > 1e-12
    assert np.allclose(np.sort(delays[kept]), [0.0, (2.5 - 0.5) / SPEED_OF_SOUND])
    assert np.allclose(np.sort(gains[kept]), [0.8 * 0.5 / 2.5, 1.0])


def test_whole_positions_are_single_samples_and_fractional_ones_keep_their_delay() -> None:
    whole = place(np.array([0.0, 5.0]), np.array([1.0, 0.5]), 8)
    assert np.allclose(whole, [1, 0, 0, 0, 0, 0.5, 0, 0])
    response = place(np.array([40.25]), np.array([1.0]), 128)
    phase = np.unwrap(np.angle(np.fft.rfft(response)))[:40]
    assert np.allclose(phase, -2 * np.pi * np.arange(40) / 128 * 40.25, atol=0.02)


def test_impossible_reverberation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.01 s cannot be simulated"):
        simulate_room(RATE, 0.01, None, generator(0))
