"""Synthetic talkers: a vocal tract, a glottal source and habits, drawn from overlapping ranges.

No single number identifies a talker: two talkers of one gender differ by about as much in mean F0
or in one formant as one talker differs between days and sentences.  What stays is the pattern of
formants, bandwidths, source and articulation together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glottis.synth.phones import REFERENCE_TRACT_CM, VOWEL_NAMES

NUM_FORMANTS = 8
GENDERS = ("f", "m")

_F0_HZ = {"f": 190.0, "m": 126.0}
_TRACT_CM = {"f": 15.3, "m": 17.1}
_OPEN_QUOTIENT = {"f": 0.66, "m": 0.58}


@dataclass(frozen=True)
class Talker:
    """Everything that is constant about one voice.

    formant_scale, bandwidth_scale: (8,) factors for F1..F8 over a 17.5 cm reference tract.
    vowel_scale: (vowels, 3) factors on F1..F3 of each vowel: where this talker puts it.
    open_quotient: share of the period in which the glottis is open.
    pulse_skew: 0 symmetric (soft), 1 late sharp closure; tilt_hz: corner of the source's roll-off.
    jitter, shimmer: relative cycle-to-cycle deviations of period and amplitude.
    aspiration_db: breath noise relative to voicing.
    nasality: how far the nasal branch is open in vowels (0..1); nasal_hz: its resonance.
    frication_scale: factor on the centre frequencies of fricatives.
    reduction: how far unstressed vowels move towards the neutral one (0..1).
    accent_semitones, declination_semitones, final_semitones: habitual prosody.
    syllables_per_second, pause_seconds: habitual timing.
    """

    name: str
    gender: str
    tract_cm: float
    formant_scale: np.ndarray
    bandwidth_scale: np.ndarray
    vowel_scale: np.ndarray
    f0_hz: float
    open_quotient: float
    pulse_skew: float
    tilt_hz: float
    jitter: float
    shimmer: float
    aspiration_db: float
    nasality: float
    nasal_hz: float
    frication_scale: float
    reduction: float
    accent_semitones: float
    declination_semitones: float
    final_semitones: float
    syllables_per_second: float
    pause_seconds: float


def draw_talker(rng: np.random.Generator, name: str, gender: str) -> Talker:
    """A random talker of this gender ("f" or "m")."""
    tract_cm = _TRACT_CM[gender] + 0.5 * float(_bounded(rng))
    length_scale = REFERENCE_TRACT_CM / tract_cm
    # The low formants follow the sentence, the high ones the anatomy: those differ more.
    spread = np.array([0.025, 0.025, 0.025, 0.03, 0.035, 0.035, 0.035, 0.035])
    formant_scale = length_scale * np.exp(spread * _bounded(rng, NUM_FORMANTS))
    return Talker(
        name=name,
        gender=gender,
        tract_cm=tract_cm,
        formant_scale=formant_scale,
        bandwidth_scale=np.exp(0.2 * _bounded(rng, NUM_FORMANTS)),
        vowel_scale=np.exp(0.03 * _bounded(rng, (len(VOWEL_NAMES), 3))),
        f0_hz=_F0_HZ[gender] * float(np.exp(0.12 * _bounded(rng))),
        open_quotient=float(np.clip(_OPEN_QUOTIENT[gender] + 0.07 * _bounded(rng), 0.4, 0.85)),
        pulse_skew=float(rng.uniform(0.1, 1.0)),
        tilt_hz=float(np.exp(rng.uniform(np.log(1200.0), np.log(3600.0)))),
        jitter=float(np.exp(rng.uniform(np.log(0.006), np.log(0.018)))),
        shimmer=float(rng.uniform(0.03, 0.12)),
        aspiration_db=float(rng.uniform(-29.0, -21.0)),
        nasality=float(rng.uniform(0.0, 0.4)),
        nasal_hz=float(rng.uniform(230.0, 330.0) * length_scale),
        frication_scale=float(length_scale**0.5 * np.exp(0.06 * _bounded(rng))),
        reduction=float(rng.uniform(0.15, 0.5)),
        accent_semitones=float(rng.uniform(1.0, 4.5)),
        declination_semitones=float(rng.uniform(0.5, 4.0)),
        final_semitones=float(rng.uniform(-5.0, 1.5)),
        syllables_per_second=float(4.4 * np.exp(0.12 * _bounded(rng))),
        pause_seconds=float(rng.uniform(0.12, 0.32)),
    )


def _bounded(rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Standard normal, cut at 2.5: nobody has an impossible throat."""
    return np.asarray(np.clip(rng.standard_normal(size), -2.5, 2.5))
