"""Simulated attacks: the same talkers, re-synthesised the way vocoders and TTS systems do it.

Every attack takes clean speech and gives clean speech of the same length; rooms, microphones and
noise come afterwards, in the same sessions as for bona fide speech.

S01  mel spectrogram, inverted, phases by Griffin-Lim (Griffin and Lim, IEEE Trans. ASSP 1984)
S02  linear prediction, a pulse or noise per frame (Atal and Hanauer, JASA 1971)
S03  cepstral envelope, minimum-phase pulses without jitter, noise above a voicing cut-off
     (like WORLD; Morise et al., IEICE Trans. 2016)
S04  harmonics with fixed phases, held for 20 ms, noise only where unvoiced (like sinusoidal coders;
     McAulay and Quatieri, IEEE Trans. ASSP 1986)
S05  over-smoothed, quantised cepstra and intonation (like statistical parametric synthesis; Zen,
     Tokuda and Black, Speech Communication 2009)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array

from glottis.synth import tract, vocoder
from glottis.synth.articulation import SAMPLE_RATE
from glottis.synth.utterances import Speech

Attack = Callable[[Speech, np.random.Generator], np.ndarray]

_MEL_FFT = 1024
_MEL_HOP = 200
_MEL_BANDS = 44
_ROUNDS = 3


def mel_griffin_lim(speech: Speech, rng: np.random.Generator) -> np.ndarray:
    """S01: all phase is lost, and the fine structure above about 2 kHz."""
    num_samples = len(speech.samples)
    num_frames = num_samples // _MEL_HOP + 2
    window = np.hanning(_MEL_FFT + 1)[:-1].astype(np.float32)
    bands = _mel_bands()
    spectra = np.abs(_analyse(speech.samples, window, num_frames))
    area = np.asarray(bands.sum(axis=1)).reshape(-1, 1)
    cover = np.asarray(bands.sum(axis=0)).reshape(-1, 1)
    power = bands @ (spectra**2).T / area  # (bands, T): mean power under each triangle
    amplitude = np.sqrt(bands.T @ power / cover).T.astype(np.float32)
    spectrum = amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape)).astype(np.complex64)
    signal = _synthesise(spectrum, window, num_samples)
    for _ in range(_ROUNDS):
        estimate = _analyse(signal, window, num_frames)
        estimate *= amplitude / np.maximum(np.abs(estimate), 1e-8)
        signal = _synthesise(estimate, window, num_samples)
    return signal


def linear_prediction(speech: Speech, rng: np.random.Generator) -> np.ndarray:
    """S02: 16 poles; each frame is either all pulse or all noise."""
    envelope = vocoder.linear_prediction_envelope(_spectra(speech), 16)
    return _excited(envelope, speech, _NO_NOISE, "minimum", rng)


def cepstral_mixed(speech: Speech, rng: np.random.Generator) -> np.ndarray:
    """S03: 32 cepstral coefficients; voiced frames are pulses below 3.5 kHz and noise above."""
    envelope = vocoder.cepstral_envelope(_spectra(speech), 32)
    return _excited(envelope, speech, _rising(3500.0, 600.0), "minimum", rng)


def fixed_phase(speech: Speech, rng: np.random.Generator) -> np.ndarray:
    """S04: 48 cepstral coefficients every 20 ms, dispersed pulses, no noise between harmonics."""
    spectra = _spectra(speech)
    held = np.minimum(np.arange(len(spectra)) // 4 * 4 + 2, len(spectra) - 1)
    envelope = vocoder.same_power(vocoder.cepstral_envelope(spectra[held], 48), spectra)
    return _excited(envelope, speech, _NO_NOISE, "fixed", rng)


def oversmoothed(speech: Speech, rng: np.random.Generator) -> np.ndarray:
    """S05: 30 cepstral coefficients, averaged over some 80 ms and quantised; stiff intonation."""
    spectra = _spectra(speech)
    log_envelope = np.log(np.maximum(vocoder.cepstral_envelope(spectra, 30), 1e-5))
    cepstra = fft.irfft(log_envelope, axis=1)[:, :30]
    cepstra[:, 1:] *= 2.0
    # The overall slope moves less than the rest: else fricatives would smear over the vowels.
    cepstra[:, 1:3] = gaussian_filter1d(cepstra[:, 1:3], 2.0, axis=0, mode="nearest")
    cepstra[:, 3:] = gaussian_filter1d(cepstra[:, 3:], 7.0, axis=0, mode="nearest")
    cepstra[:, 1:] = 0.05 * np.round(cepstra[:, 1:] / 0.05)
    envelope = vocoder.same_power(vocoder.from_cepstra(cepstra), spectra)
    f0_hz = np.exp(gaussian_filter1d(np.log(speech.f0_hz), 10.0, mode="nearest"))
    stiff = replace(speech, f0_hz=f0_hz)
    return _excited(envelope, stiff, _rising(3000.0, 1500.0), "minimum", rng)


ATTACKS: dict[str, Attack] = {
    "S01": mel_griffin_lim,
    "S02": linear_prediction,
    "S03": cepstral_mixed,
    "S04": fixed_phase,
    "S05": oversmoothed,
}


def _spectra(speech: Speech) -> np.ndarray:
    return vocoder.amplitude_spectra(speech.samples, len(speech.f0_hz))


def _rising(middle_hz: float, width_hz: float) -> np.ndarray:
    """(F,) share of noise in the power: a step at ``middle_hz``, soft over ``width_hz``."""
    hz = np.linspace(0.0, SAMPLE_RATE / 2, vocoder.FFT_SIZE // 2 + 1)
    share = np.clip(0.5 + 0.5 * np.tanh((hz - middle_hz) / width_hz), 0.01, 0.99)
    return np.asarray(share, np.float32)


_NO_NOISE = np.zeros(vocoder.FFT_SIZE // 2 + 1, np.float32)


def _excited(
    envelope: np.ndarray,
    speech: Speech,
    noise_share: np.ndarray,
    phase: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """The envelope (T, F) as sound: noise where unvoiced, pulses and ``noise_share`` (F,) else."""
    num_samples = len(speech.samples)
    share = np.where(speech.voiced[:, None], noise_share, np.float32(1.0))
    tonal = envelope * np.sqrt(1.0 - share)
    pulses = vocoder.buzz(tonal, speech.f0_hz, speech.voiced, num_samples, rng, phase)
    return np.asarray(pulses + vocoder.hiss(envelope * np.sqrt(share), num_samples, rng))


def _analyse(signal: np.ndarray, window: np.ndarray, num_frames: int) -> np.ndarray:
    frames = tract.frame(signal, _MEL_HOP, _MEL_FFT, num_frames).astype(np.float32)
    spectra: np.ndarray = fft.rfft(frames * window, axis=1)
    return spectra


def _synthesise(spectra: np.ndarray, window: np.ndarray, num_samples: int) -> np.ndarray:
    """The signal whose frames are nearest to these spectra (Griffin and Lim 1984, equation 6)."""
    frames = fft.irfft(spectra, _MEL_FFT, axis=1) * window
    total = tract.overlap_add(frames, _MEL_HOP, num_samples, _MEL_FFT // 2)
    squares = np.broadcast_to(window**2, frames.shape)
    return np.asarray(total / tract.overlap_add(squares, _MEL_HOP, num_samples, _MEL_FFT // 2))


@cache
def _mel_bands() -> csr_array:
    """(bands, F) triangles of peak one, equally spaced in mel over the whole band."""
    top = 2595.0 * np.log10(1.0 + SAMPLE_RATE / 2 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, top, _MEL_BANDS + 2) / 2595.0) - 1.0)
    hz = np.linspace(0.0, SAMPLE_RATE / 2, _MEL_FFT // 2 + 1)[None]
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle))
    # Bins at the edges belong to no triangle; a little weight keeps the inverse defined.
    return csr_array(np.maximum(triangles, 0.0) + 1e-6 * (np.abs(hz - middle) < 200.0))
