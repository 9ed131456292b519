"""Rooms, microphones, noise and level: independent of the talker, in the stated ranges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from glottis.rng import generator
from glottis.synth.articulation import SAMPLE_RATE
from glottis.synth.sessions import CHANNELS, Session, draw_delivery, draw_session, record

SESSIONS = [draw_session(generator(3, i), f"s{i}") for i in range(24)]


def burst(seconds: float = 1.0) -> np.ndarray:
    """Half a second of silence, then noise in the middle of the band, then silence."""
    rng = generator(3, "burst")
    band = signal.butter(4, [800.0, 3000.0], "bandpass", fs=SAMPLE_RATE, output="sos")
    noise = signal.sosfilt(band, rng.standard_normal(int(seconds * SAMPLE_RATE)))
    return np.pad(noise, SAMPLE_RATE // 2)


def test_every_kind_of_channel_comes_up() -> None:
    assert {s.channel for s in SESSIONS} == set(CHANNELS)


@pytest.mark.parametrize("session", SESSIONS[:8], ids=lambda s: s.channel)
def test_recording_is_sixteen_bit_and_does_not_clip(session: Session) -> None:
    clean = burst()
    for attempt in range(5):
        samples = record(100.0 * clean, session, generator(3, "record", attempt))
        assert samples.dtype == np.int16
        assert samples.shape == clean.shape
        assert np.abs(samples.astype(int)).max() <= 0.97 * 32767 + 1


@pytest.mark.parametrize("session", SESSIONS[:12], ids=lambda s: f"{s.name}-{s.channel}")
def test_noise_is_at_the_session_s_ratio(session: Session) -> None:
    samples = record(burst(2.0), session, generator(3, "snr")).astype(float)
    before = samples[: SAMPLE_RATE // 2 - 160]
    during = samples[SAMPLE_RATE // 2 + 1600 : SAMPLE_RATE // 2 + 30000]
    noise = np.mean((before - before.mean()) ** 2)
    ratio = 10 * np.log10(np.mean(during**2) / noise - 1.0)
    assert ratio == pytest.approx(session.snr_db, abs=5.0)  # a stretch of brown noise varies


def test_the_direct_sound_is_not_delayed() -> None:
    for session in SESSIONS:
        quiet = Session(**{**session.__dict__, "snr_db": 80.0})
        samples = record(burst(), quiet, generator(3, "delay")).astype(float)
        loud = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max())
        assert abs(loud[0] - SAMPLE_RATE // 2) < 0.02 * SAMPLE_RATE, session.channel


def test_level_does_not_depend_on_the_input_level() -> None:
    session = SESSIONS[0]
    soft = record(1e-3 * burst(), session, generator(3, "level")).astype(float)
    loud = record(1e3 * burst(), session, generator(3, "level")).astype(float)
    assert np.allclose(soft, loud, atol=1.0)


def test_levels_spread_around_the_target() -> None:
    levels = []
    for attempt in range(90):
        samples = record(burst(), SESSIONS[1], generator(3, "levels", attempt)) / 32767
        levels.append(20 * np.log10(np.std(samples)))
    assert np.mean(levels) == pytest.approx(-27.0, abs=1.0)
    assert 2.5 < np.std(levels) < 4.5


def test_wiring_decides_the_sign() -> None:
    signs = {float(np.sign(s.impulse[np.argmax(np.abs(s.impulse))])) for s in SESSIONS}
    assert signs == {-1.0, 1.0}


def test_days_and_sentences_differ() -> None:
    one = [draw_delivery(SESSIONS[0], generator(3, "day", i)) for i in range(200)]
    pitch = np.log([d.f0_factor for d in one])
    assert np.mean(pitch) == pytest.approx(np.log(SESSIONS[0].f0_factor), abs=0.015)
    assert 0.03 < np.std(pitch) < 0.07
    assert np.std([np.log(s.f0_factor) for s in SESSIONS]) > 0.03
