"""Recording sessions: a room, a microphone, a noise and a day of the talker.

A session is drawn without knowing the talker or the label of what will be recorded in it, and
both bona fide and spoofed clips of a talker go through the same sessions: neither the channel nor
the level says anything about who spoke or whether a throat was involved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.signal import fftconvolve

from glottis.augment.simulate import simulate_noise, simulate_room
from glottis.synth.articulation import SAMPLE_RATE
from glottis.synth.segments import Delivery

# channel: reverberation time (s), direct-to-reverberant ratio (dB), signal-to-noise ratio (dB)
CHANNELS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "headset": ((0.10, 0.25), (12.0, 20.0), (24.0, 38.0)),
    "handset": ((0.10, 0.35), (8.0, 16.0), (20.0, 34.0)),
    "laptop": ((0.20, 0.50), (2.0, 9.0), (16.0, 30.0)),
    "tabletop": ((0.25, 0.60), (-2.0, 6.0), (14.0, 26.0)),
}
NOISES = ("white", "pink", "brown", "hum")

_LEVEL_DB = (-27.0, 3.5)  # RMS of the clip: mean and standard deviation
_PEAK = 0.97
_NOISE_SECONDS = 8.0
_MICROPHONE_FFT = 1024
_ACTIVE_FRAME = 320


@dataclass(frozen=True)
class Session:
    """One place and day: what is constant between its clips.

    impulse: (S,) room and microphone together, direct sound first.
    noise: (S,) some seconds of it; every clip hears another stretch.
    """

    name: str
    channel: str
    impulse: np.ndarray
    noise: np.ndarray
    snr_db: float
    f0_factor: float
    rate_factor: float
    tract_factor: float


def draw_session(rng: np.random.Generator, name: str) -> Session:
    """A random session."""
    channel = tuple(CHANNELS)[int(rng.integers(len(CHANNELS)))]
    decay, direct, snr = CHANNELS[channel]
    room = simulate_room(SAMPLE_RATE, rng.uniform(*decay), rng.uniform(*direct), rng)
    kind = NOISES[int(rng.integers(len(NOISES)))]
    polarity = 1.0 if rng.random() < 0.5 else -1.0  # wiring decides the sign, not the voice
    return Session(
        name=name,
        channel=channel,
        impulse=(polarity * fftconvolve(room, _microphone(rng))).astype(np.float32),
        noise=simulate_noise(kind, int(_NOISE_SECONDS * SAMPLE_RATE), SAMPLE_RATE, rng),
        snr_db=float(rng.uniform(*snr)),
        f0_factor=float(np.exp(0.055 * rng.standard_normal())),
        rate_factor=float(np.exp(0.06 * rng.standard_normal())),
        tract_factor=float(np.exp(0.012 * rng.standard_normal())),
    )


def draw_delivery(session: Session, rng: np.random.Generator) -> Delivery:
    """How one utterance of the session is said: the day's offsets and its own."""
    return Delivery(
        f0_factor=session.f0_factor * float(np.exp(0.05 * rng.standard_normal())),
        rate_factor=session.rate_factor * float(np.exp(0.06 * rng.standard_normal())),
        tract_factor=session.tract_factor * float(np.exp(0.008 * rng.standard_normal())),
        effort_db=float(rng.normal(0.0, 3.0)),
    )


def record(clean: np.ndarray, session: Session, rng: np.random.Generator) -> np.ndarray:
    """Clean speech (S,) as the session's microphone gives it: (S,) int16.

    Noise is set against the level of the speech while it is active; then the whole clip gets a
    random level, lower where its peaks would not fit.
    """
    num_samples = len(clean)
    size = fft.next_fast_len(num_samples + len(session.impulse), real=True)
    spectrum = fft.rfft(clean.astype(np.float32), size) * fft.rfft(session.impulse, size)
    wet = fft.irfft(spectrum, size)[:num_samples].astype(np.float64)
    start = int(rng.integers(len(session.noise)))
    noise = np.take(session.noise, np.arange(start, start + num_samples), mode="wrap")
    snr_db = session.snr_db + rng.uniform(-2.0, 2.0)
    wanted = _active_rms(wet) * 10.0 ** (-snr_db / 20.0)
    mixed = wet + noise * (wanted / np.sqrt(np.mean(noise**2)))
    level = np.clip(rng.standard_normal(), -2.5, 2.5) * _LEVEL_DB[1] + _LEVEL_DB[0]
    gain = 10.0 ** (level / 20.0) / np.sqrt(np.mean(mixed**2))
    gain = min(gain, _PEAK / float(np.max(np.abs(mixed))))
    offset = 2e-4 * rng.standard_normal()  # converters are never exactly centred
    samples: np.ndarray = np.round(32767.0 * np.clip(gain * mixed + offset, -_PEAK, _PEAK))
    return samples.astype(np.int16)


def _active_rms(samples: np.ndarray) -> float:
    """RMS over the 20 ms frames within 30 dB of the loudest one."""
    usable = len(samples) // _ACTIVE_FRAME * _ACTIVE_FRAME
    power = np.mean(samples[:usable].reshape(-1, _ACTIVE_FRAME) ** 2, axis=1)
    return float(np.sqrt(np.mean(power[power > 1e-3 * power.max()])))


def _microphone(rng: np.random.Generator) -> np.ndarray:
    """Minimum-phase impulse response: random gains per third of an octave, two soft band edges."""
    hz = np.fft.rfftfreq(_MICROPHONE_FFT, 1.0 / SAMPLE_RATE)
    anchors = np.geomspace(100.0, 8000.0, 10)
    gains_db = 2.5 * np.clip(rng.standard_normal(len(anchors)), -2.0, 2.0)
    gains_db += rng.uniform(-1.5, 1.5) * np.log2(anchors / 1000.0)
    magnitude = 10.0 ** (np.interp(np.log(np.maximum(hz, 50.0)), np.log(anchors), gains_db) / 20.0)
    low, high = rng.uniform(40.0, 140.0), rng.uniform(6500.0, 7800.0)
    magnitude /= np.sqrt(1.0 + (low / np.maximum(hz, 1.0)) ** 4)
    magnitude /= np.sqrt(1.0 + (hz / high) ** 16)
    cepstrum = fft.irfft(np.log(magnitude))
    cepstrum[1 : _MICROPHONE_FFT // 2] *= 2.0
    cepstrum[_MICROPHONE_FFT // 2 + 1 :] = 0.0
    response: np.ndarray = fft.irfft(np.exp(fft.rfft(cepstrum)))
    return response[: _MICROPHONE_FFT // 2]
