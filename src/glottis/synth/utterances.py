"""Source-filter synthesis: control tracks become samples.

Every glottal pulse is a grain with the vocal tract of its own moment; breath and frication are
noise grains every 5 ms.  Klatt, "Software for a cascade/parallel formant synthesizer", JASA 1980,
is the plan; pulses in the frequency domain and per-pulse filters replace its sample loop.

Shapes: S samples, T frames of 5 ms, N pulses, F bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from glottis.synth import source, tract
from glottis.synth.articulation import FRAME_HOP, SAMPLE_RATE, Tracks, articulate
from glottis.synth.phones import draw_text
from glottis.synth.segments import Delivery
from glottis.synth.talkers import Talker

_PULSE_FFT = 1024
_NOISE_FFT = 320
_NOISE_WINDOW = 2 * FRAME_HOP
_MICRO_VARIATION = 0.01  # relative pulse-to-pulse change of the lower formants
_AUDIBLE = 1e-3


@dataclass(frozen=True)
class Speech:
    """Clean speech before any room: samples (S,), and what an analyser would find.

    f0_hz (T,): the intonation without jitter; voiced (T,): where the vocal folds swing.
    text: the syllables that were said.
    """

    samples: np.ndarray
    f0_hz: np.ndarray
    voiced: np.ndarray
    text: str


def speak(
    talker: Talker,
    delivery: Delivery,
    num_samples: int,
    edges_s: tuple[float, float],
    text_rng: np.random.Generator,
    voice_rng: np.random.Generator,
) -> Speech:
    """A random sentence of this talker, ``num_samples`` long with silent edges (seconds).

    text_rng decides what is said, voice_rng how: the same text_rng gives the same syllables to
    every talker.
    """
    text = draw_text(text_rng, 4 + int(8 * num_samples / SAMPLE_RATE))
    tracks = articulate(text, talker, delivery, num_samples, edges_s, voice_rng)
    pulses = source.pulse_times(tracks.f0_hz, FRAME_HOP, SAMPLE_RATE, talker.jitter, voice_rng)
    samples = _voiced(tracks, talker, delivery, pulses, num_samples, voice_rng)
    samples += _unvoiced(tracks, talker, pulses, num_samples, voice_rng)
    said = " ".join(str(syllable) for syllable in text[: tracks.num_syllables])
    return Speech(samples, tracks.f0_hz, tracks.voiced, said)


def _voiced(
    tracks: Tracks,
    talker: Talker,
    delivery: Delivery,
    pulses: source.Pulses,
    num_samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    position = pulses.times / FRAME_HOP
    frames = np.arange(len(tracks.voice))
    loudness = np.interp(position, frames, tracks.voice)
    keep = loudness > _AUDIBLE
    position, loudness = position[keep], loudness[keep]
    shimmer = np.clip(rng.standard_normal(len(position)), -3.0, 3.0)
    formants = _rows(tracks.formants_hz, position)
    formants[:, :3] *= 1.0 + _MICRO_VARIATION * rng.standard_normal((len(position), 3))
    bandwidths = _rows(tracks.bandwidths_hz, position)
    nasal = np.interp(position, frames, tracks.nasal)

    spectra = source.flow_derivative_spectrum(
        talker.open_quotient * pulses.periods_s[keep], talker.pulse_skew, SAMPLE_RATE, _PULSE_FFT
    )
    corner = talker.tilt_hz * 10 ** (delivery.effort_db / 20.0) * np.sqrt(np.minimum(loudness, 2.0))
    poles, zeros = _tract(formants, bandwidths, nasal, talker)
    slope = source.tilt_polynomial(np.clip(corner, 300.0, 7000.0), SAMPLE_RATE)
    spectra *= tract.response(zeros, _PULSE_FFT)
    spectra /= tract.response(tract.multiply(poles, slope), _PULSE_FFT)
    starts, remainder = source.split_times(pulses.times[keep], _PULSE_FFT)
    spectra *= remainder
    grains = fft.irfft(spectra, _PULSE_FFT, axis=1)
    grains *= (loudness * (1.0 + talker.shimmer * shimmer))[:, None]
    return tract.place_grains(grains, starts, num_samples)


def _unvoiced(
    tracks: Tracks,
    talker: Talker,
    pulses: source.Pulses,
    num_samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Breath through the whole tract, gated by the glottis; frication through its own cavity."""
    num_frames = len(tracks.voice)
    white = rng.standard_normal(num_samples)
    open_ = source.open_phase(pulses, talker.open_quotient, num_samples, SAMPLE_RATE)
    voiced = np.repeat(tracks.voiced, FRAME_HOP)[:num_samples]
    white *= np.where(voiced, 0.35 + 0.9 * open_, 1.0)
    grains = tract.frame(white, FRAME_HOP, _NOISE_WINDOW, num_frames)
    active = np.flatnonzero((tracks.aspiration > _AUDIBLE) | (tracks.noise > _AUDIBLE))
    window = np.hanning(_NOISE_WINDOW + 1)[:-1]  # sums to one at half its length
    spectra = fft.rfft((grains[active] * window).astype(np.float32), _NOISE_FFT, axis=1)
    poles, zeros = _tract(
        tracks.formants_hz[active], tracks.bandwidths_hz[active] * 1.5, tracks.nasal[active], talker
    )
    gain = tract.response(zeros, _NOISE_FFT)
    gain /= tract.response(poles, _NOISE_FFT)
    gain *= tracks.aspiration[active, None].astype(np.float32)
    hissing = np.flatnonzero(tracks.noise[active] > _AUDIBLE)
    gain[hissing] += (
        _frication(tracks.noise_hz[active[hissing]]) * (tracks.noise[active[hissing], None])
    )
    result = np.zeros((num_frames, _NOISE_FFT), np.float32)
    result[active] = fft.irfft(spectra * gain, _NOISE_FFT, axis=1)
    return tract.overlap_add(result, FRAME_HOP, num_samples, _NOISE_WINDOW // 2)


def _tract(
    formants: np.ndarray, bandwidths: np.ndarray, nasal: np.ndarray, talker: Talker
) -> tuple[np.ndarray, np.ndarray]:
    """Poles (N, P) and zeros (N, 3) of mouth and nose; the nasal pair cancels where nasal is 0."""
    pole = np.full((len(formants), 1), talker.nasal_hz)
    width = np.full((len(formants), 1), 110.0)
    zero = pole * (1.0 + 2.0 * nasal[:, None])
    poles = tract.resonator_polynomial(
        np.concatenate([formants, pole], axis=1),
        np.concatenate([bandwidths, width], axis=1),
        SAMPLE_RATE,
    )
    return poles, tract.resonator_polynomial(zero, width, SAMPLE_RATE)


def _frication(noise_hz: np.ndarray) -> np.ndarray:
    """(N, 2) centre and bandwidth -> (N, F) magnitudes with a mean square of one."""
    centre = np.clip(noise_hz[:, :1], 300.0, 7600.0)
    poles = tract.resonator_polynomial(centre, noise_hz[:, 1:], SAMPLE_RATE)
    rising = np.linspace(0.0, 1.0, _NOISE_FFT // 2 + 1)
    magnitude = rising / np.abs(tract.response(poles, _NOISE_FFT))
    return np.asarray(magnitude / np.sqrt(np.mean(magnitude**2, axis=1, keepdims=True)))


def _rows(track: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Rows of a (T, K) track at fractional frame positions (N,)."""
    low = np.clip(position.astype(np.int64), 0, len(track) - 2)
    weight = np.clip(position - low, 0.0, 1.0)[:, None]
    return np.asarray((1.0 - weight) * track[low] + weight * track[low + 1])
