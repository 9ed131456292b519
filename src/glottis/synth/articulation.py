"""From a text and a talker to control tracks: what the throat and the mouth do, every 5 ms.

The targets of the segments are smoothed over time, which gives the transitions between sounds
(coarticulation).  Prosody is declination, accents on stressed vowels and a movement at the end of
each phrase, on top of a slow random drift.

Shapes: T frames of 5 ms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from glottis.synth.phones import NEUTRAL, Syllable
from glottis.synth.segments import NO_PHRASE, SILENT_DB, Delivery, Segment, fit_segments
from glottis.synth.talkers import NUM_FORMANTS, Talker

SAMPLE_RATE = 16000
FRAME_HOP = 80

_VOICED = 0.03
_UPPER_HZ = np.array([3500.0, 4500.0, 5500.0, 6500.0, 7500.0])
_BANDWIDTHS_HZ = np.array([65.0, 85.0, 120.0, 180.0, 240.0, 300.0, 380.0, 460.0])


@dataclass(frozen=True)
class Tracks:
    """Controls per frame: (T,) except formants and bandwidths (T, 8) and noise_hz (T, 2).

    voice, aspiration and noise are linear amplitudes; noise_hz is centre and bandwidth;
    num_syllables is how many syllables of the text were said.
    """

    f0_hz: np.ndarray
    formants_hz: np.ndarray
    bandwidths_hz: np.ndarray
    voice: np.ndarray
    aspiration: np.ndarray
    noise: np.ndarray
    noise_hz: np.ndarray
    nasal: np.ndarray
    num_syllables: int

    @property
    def voiced(self) -> np.ndarray:
        """(T,) where the vocal folds swing audibly."""
        return np.asarray(self.voice > _VOICED)


def articulate(
    text: tuple[Syllable, ...],
    talker: Talker,
    delivery: Delivery,
    num_samples: int,
    edges_s: tuple[float, float],
    rng: np.random.Generator,
) -> Tracks:
    """Say as much of ``text`` as fits between the silent edges (seconds) of ``num_samples``."""
    num_frames = num_samples // FRAME_HOP + 1
    seconds = num_samples / SAMPLE_RATE - sum(edges_s)
    segments, num_syllables = fit_segments(text, talker, delivery, seconds, rng)
    ends = edges_s[0] + np.cumsum([segment.seconds for segment in segments])
    frame_times = np.arange(num_frames) * (FRAME_HOP / SAMPLE_RATE)
    which = np.searchsorted(ends, frame_times, side="right")
    inside = (frame_times >= edges_s[0]) & (which < len(segments))
    which = np.minimum(which, len(segments) - 1)
    formants, bandwidths = _formants(segments, which, talker, delivery, rng)
    nasal = np.array([s.nasal for s in segments])[which]
    return Tracks(
        f0_hz=_f0(segments, ends, frame_times, talker, delivery, rng),
        formants_hz=formants,
        bandwidths_hz=bandwidths,
        voice=_levels([s.voice_db for s in segments], which, inside, 1.8),
        aspiration=_levels([s.aspiration_db for s in segments], which, inside, 1.5),
        noise=_levels([s.noise_db for s in segments], which, inside, 0.9),
        noise_hz=np.array([s.frication for s in segments])[which] * [talker.frication_scale, 1.0],
        nasal=gaussian_filter1d(nasal, 3.0, mode="nearest"),
        num_syllables=num_syllables,
    )


def _levels(
    levels_db: list[float], which: np.ndarray, inside: np.ndarray, smooth: float
) -> np.ndarray:
    """Linear amplitudes (T,), zero outside, smoothed over some frames."""
    levels = np.array(levels_db)
    linear = np.where(levels <= SILENT_DB + 40.0, 0.0, 10.0 ** (levels / 20.0))
    steps = np.where(inside, linear[which], 0.0)
    smoothed: np.ndarray = gaussian_filter1d(steps, smooth, mode="constant")
    return smoothed


def _formants(
    segments: list[Segment],
    which: np.ndarray,
    talker: Talker,
    delivery: Delivery,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Formants and bandwidths (T, 8): smoothed targets with a slow random wander of 1.2 %."""
    low = np.array([s.formants for s in segments])[which]  # (T, 3)
    high = np.broadcast_to(_UPPER_HZ, (len(which), len(_UPPER_HZ)))
    high = high * (1.0 + 0.12 * (low[:, 2:3] / NEUTRAL[2] - 1.0))
    formants = np.concatenate([low, high], axis=1)
    formants *= talker.formant_scale * delivery.tract_factor
    formants = gaussian_filter1d(formants, 4.5, axis=0, mode="nearest")
    wander = gaussian_filter1d(rng.standard_normal(formants.shape), 8.0, axis=0, mode="nearest")
    formants = formants * (1.0 + 0.012 * wander * np.sqrt(2.0 * np.sqrt(np.pi) * 8.0))
    for k in range(1, NUM_FORMANTS):
        formants[:, k] = np.maximum(formants[:, k], formants[:, k - 1] + 180.0)
    bandwidths = _BANDWIDTHS_HZ * talker.bandwidth_scale * np.ones_like(formants)
    # A resonance above the band would fold back: keep it at the edge, too wide to be heard.
    beyond = np.clip(formants - 7600.0, 0.0, None)
    return np.minimum(formants, 7900.0), bandwidths + 4.0 * beyond


def _f0(
    segments: list[Segment],
    ends: np.ndarray,
    frame_times: np.ndarray,
    talker: Talker,
    delivery: Delivery,
    rng: np.random.Generator,
) -> np.ndarray:
    """F0 in Hz (T,), also where nothing is voiced."""
    semitones = np.zeros(len(frame_times))
    starts = np.concatenate([[ends[0] - segments[0].seconds], ends[:-1]])
    for index, segment in enumerate(segments):
        if segment.accent:
            centre = 0.5 * (starts[index] + ends[index])
            bump = np.exp(-0.5 * ((frame_times - centre) / 0.07) ** 2)
            semitones += talker.accent_semitones * segment.accent * bump
    phrases = np.array([s.phrase for s in segments])
    for phrase in np.unique(phrases):
        members = np.flatnonzero(phrases == phrase)
        start, end = starts[members[0]], ends[members[-1]]
        place = np.clip((frame_times - start) / max(end - start, 0.1), 0.0, 1.0)
        if phrase == NO_PHRASE:
            continue
        here = (frame_times >= start) & (frame_times < end)
        final = talker.final_semitones + 1.5 * float(rng.standard_normal())
        slope = talker.declination_semitones * (0.5 - place) + float(rng.normal(0.0, 0.5))
        semitones += here * (slope + final * np.clip((place - 0.75) / 0.25, 0.0, 1.0))
    drift = gaussian_filter1d(rng.standard_normal(len(frame_times)), 10.0, mode="nearest")
    semitones = gaussian_filter1d(semitones, 4.0, mode="nearest") + 1.5 * drift
    f0_hz = talker.f0_hz * delivery.f0_factor * 2.0 ** (semitones / 12.0)
    return np.asarray(np.clip(f0_hz, 60.0, 420.0))
