"""From a text to segments: the sounds of an utterance with their lengths and targets.

A phone becomes one to three segments (a stop is a closure, a burst and breath), a stressed or final
vowel is longer, an unstressed one moves towards the neutral vowel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from glottis.synth.phones import CONSONANTS, NEUTRAL, VOWEL_NAMES, VOWELS, Syllable
from glottis.synth.talkers import Talker

SILENT_DB = -120.0
NO_PHRASE = -1
_REFERENCE_RATE = 4.4  # syllables per second for which the durations below are written


@dataclass(frozen=True)
class Delivery:
    """How one utterance is said: what differs between days and sentences of one talker.

    tract_factor: on all formants (the larynx goes up and down).  effort_db: brighter or duller.
    """

    f0_factor: float = 1.0
    rate_factor: float = 1.0
    tract_factor: float = 1.0
    effort_db: float = 0.0


@dataclass(frozen=True)
class Segment:
    """A stretch with constant targets; levels in dB."""

    seconds: float
    formants: tuple[float, float, float]
    voice_db: float = SILENT_DB
    aspiration_db: float = SILENT_DB
    noise_db: float = SILENT_DB
    frication: tuple[float, float] = (4000.0, 2000.0)
    nasal: float = 0.0
    accent: float = 0.0
    phrase: int = 0


def fit_segments(
    text: tuple[Syllable, ...],
    talker: Talker,
    delivery: Delivery,
    seconds: float,
    rng: np.random.Generator,
) -> tuple[list[Segment], int]:
    """Segments of the first syllables, scaled a little to last ``seconds``, and how many."""
    stretch = _REFERENCE_RATE / (talker.syllables_per_second * delivery.rate_factor)
    segments: list[Segment] = []
    spoken, phrase, count = 0.0, 0, 0
    for syllable in text:
        new = _syllable(syllable, talker, stretch, phrase, rng)
        if count and text[count - 1].last_of_phrase:
            pause = talker.pause_seconds * float(np.exp(0.35 * rng.standard_normal()))
            new.insert(0, Segment(pause, NEUTRAL, phrase=NO_PHRASE))
        length = sum(segment.seconds for segment in new)
        if count and spoken + 0.5 * length > seconds:
            break
        segments += new
        spoken += length
        count += 1
        phrase += syllable.last_of_phrase
    factor = seconds / spoken
    return [replace(segment, seconds=segment.seconds * factor) for segment in segments], count


def _syllable(
    syllable: Syllable, talker: Talker, stretch: float, phrase: int, rng: np.random.Generator
) -> list[Segment]:
    level = float(rng.normal(0.0, 1.0)) - (0.0 if syllable.stressed else 3.5)
    result = _consonant(syllable.onset, talker, stretch, level, phrase, rng)
    seconds = 0.105 * stretch * float(np.exp(0.2 * rng.standard_normal()))
    seconds *= 1.25 if syllable.stressed else 0.75
    seconds *= 1.5 if syllable.last_of_phrase else 1.0
    seconds *= 1.0 if len(syllable.vowels) == 1 else 0.65
    for name in syllable.vowels:
        target = np.array(VOWELS[name]) * talker.vowel_scale[VOWEL_NAMES.index(name)]
        if not syllable.stressed:
            target += talker.reduction * (np.array(NEUTRAL) - target)
        accent = float(rng.uniform(0.4, 1.4)) if syllable.stressed else 0.0
        result.append(
            Segment(
                seconds,
                tuple(target),
                level,
                level + talker.aspiration_db,
                nasal=talker.nasality,
                accent=accent,
                phrase=phrase,
            )
        )
    return result + _consonant(syllable.coda, talker, stretch, level, phrase, rng)


def _consonant(
    name: str, talker: Talker, stretch: float, level: float, phrase: int, rng: np.random.Generator
) -> list[Segment]:
    if not name:
        return []
    sound = CONSONANTS[name]
    seconds = sound.seconds * stretch * float(np.exp(0.2 * rng.standard_normal()))
    voice = SILENT_DB if sound.voice_db is None else sound.voice_db + level
    breath = SILENT_DB if sound.aspiration_db is None else sound.aspiration_db + level
    noise = SILENT_DB if sound.noise_db is None else sound.noise_db + level
    if sound.kind.endswith("stop"):
        release = 0.008 + 0.006 * float(rng.random())
        closure = Segment(seconds, sound.locus, voice, phrase=phrase)
        burst = Segment(release, sound.locus, SILENT_DB, SILENT_DB, noise + 6.0, sound.frication)
        if sound.aspiration_db is None:
            return [closure, replace(burst, phrase=phrase)]
        length = 0.02 + 0.03 * float(rng.random())
        puff = replace(burst, seconds=length, aspiration_db=breath + 3.0, noise_db=noise - 8.0)
        return [closure, replace(burst, phrase=phrase), replace(puff, phrase=phrase)]
    if sound.voice_db is not None:
        breath = max(breath, voice + talker.aspiration_db)
    levels = (voice, breath, noise)
    return [
        Segment(seconds, sound.locus, *levels, sound.frication, sound.nasal, phrase=phrase),
    ]
