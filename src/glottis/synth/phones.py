"""The sounds of the pseudo-language and random texts in it.

Vowel targets are round numbers near the adult male averages of Peterson and Barney ("Control
methods used in a study of the vowels", JASA 1952) for a 17.5 cm tract; consonants follow the
classes of Klatt (JASA 1980): closures with bursts, frication, nasal murmur, glides, aspiration.
A text knows nothing about the talker: the same random syllables could be said by anybody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REFERENCE_TRACT_CM = 17.5

# F1, F2, F3 in Hz
VOWELS: dict[str, tuple[float, float, float]] = {
    "i": (280.0, 2250.0, 2950.0),
    "I": (390.0, 1980.0, 2550.0),
    "E": (540.0, 1820.0, 2480.0),
    "ae": (670.0, 1700.0, 2420.0),
    "a": (740.0, 1230.0, 2450.0),
    "O": (570.0, 860.0, 2430.0),
    "o": (450.0, 840.0, 2400.0),
    "u": (310.0, 880.0, 2250.0),
    "V": (620.0, 1200.0, 2400.0),
    "er": (490.0, 1350.0, 1700.0),
    "y": (280.0, 1850.0, 2200.0),
}
DIPHTHONGS: tuple[tuple[str, str], ...] = (
    ("a", "I"),
    ("a", "u"),
    ("O", "I"),
    ("E", "i"),
    ("o", "u"),
)
NEUTRAL = (500.0, 1500.0, 2500.0)
VOWEL_NAMES = tuple(VOWELS)


@dataclass(frozen=True)
class Consonant:
    """How a consonant is made; levels in dB relative to a stressed vowel, None where silent.

    locus: F1, F2, F3 (Hz) that neighbouring vowels move towards.
    frication: centre and bandwidth of its noise in Hz.
    """

    kind: str
    locus: tuple[float, float, float] = NEUTRAL
    voice_db: float | None = None
    aspiration_db: float | None = None
    noise_db: float | None = None
    frication: tuple[float, float] = (4000.0, 2000.0)
    nasal: float = 0.0
    seconds: float = 0.08


CONSONANTS: dict[str, Consonant] = {
    "p": Consonant("stop", (350, 900, 2300), None, -22, -20, (1500, 2500), 0, 0.07),
    "t": Consonant("stop", (350, 1750, 2650), None, -20, -13, (4500, 2500), 0, 0.06),
    "k": Consonant("stop", (350, 1950, 2250), None, -20, -14, (2200, 1000), 0, 0.06),
    "b": Consonant("voiced stop", (250, 900, 2250), -20, None, -24, (1200, 2500), 0, 0.06),
    "d": Consonant("voiced stop", (250, 1700, 2600), -20, None, -18, (4200, 2500), 0, 0.05),
    "g": Consonant("voiced stop", (250, 1950, 2200), -20, None, -19, (2000, 1000), 0, 0.05),
    "s": Consonant("fricative", (350, 1700, 2600), None, None, -10, (5800, 1600), 0, 0.11),
    "sh": Consonant("fricative", (350, 1800, 2450), None, None, -9, (3200, 1100), 0, 0.11),
    "f": Consonant("fricative", (400, 1000, 2300), None, None, -22, (6500, 6000), 0, 0.10),
    "x": Consonant("fricative", (400, 1500, 2300), None, -26, -17, (1900, 900), 0, 0.09),
    "z": Consonant("fricative", (300, 1700, 2550), -12, None, -16, (5600, 1700), 0, 0.08),
    "v": Consonant("fricative", (320, 1000, 2300), -10, None, -26, (6000, 6000), 0, 0.07),
    "m": Consonant("sonorant", (260, 1100, 2200), -7, None, None, nasal=1.0, seconds=0.07),
    "n": Consonant("sonorant", (260, 1550, 2500), -7, None, None, nasal=0.8, seconds=0.06),
    "l": Consonant("sonorant", (360, 1150, 2700), -4, None, None, seconds=0.06),
    "r": Consonant("sonorant", (380, 1250, 1650), -4, None, None, seconds=0.06),
    "w": Consonant("sonorant", (310, 720, 2200), -5, None, None, seconds=0.06),
    "j": Consonant("sonorant", (280, 2150, 2850), -5, None, None, seconds=0.06),
    "h": Consonant("breath", NEUTRAL, None, -16, None, seconds=0.06),
}
_ONSETS = tuple(CONSONANTS)
_CODAS = ("n", "m", "s", "l", "r", "t", "k", "sh", "f", "z")


@dataclass(frozen=True)
class Syllable:
    """One syllable: consonant or none, one or two vowel names, consonant or none."""

    onset: str
    vowels: tuple[str, ...]
    coda: str
    stressed: bool
    last_of_phrase: bool

    def __str__(self) -> str:
        accent = "'" if self.stressed else ""
        return f"{accent}{self.onset}{''.join(self.vowels)}{self.coda}"


def draw_text(rng: np.random.Generator, num_syllables: int) -> tuple[Syllable, ...]:
    """Random syllables in phrases of three to seven; they depend on nothing but ``rng``."""
    syllables = []
    left = int(rng.integers(3, 8))
    for index in range(num_syllables):
        left -= 1
        last = left == 0 or index == num_syllables - 1
        if rng.random() < 0.2:
            vowels = DIPHTHONGS[int(rng.integers(len(DIPHTHONGS)))]
        else:
            vowels = (VOWEL_NAMES[int(rng.integers(len(VOWEL_NAMES)))],)  # type: ignore[assignment]
        onset = _ONSETS[int(rng.integers(len(_ONSETS)))] if rng.random() < 0.92 else ""
        coda = _CODAS[int(rng.integers(len(_CODAS)))] if rng.random() < 0.3 else ""
        syllables.append(Syllable(onset, vowels, coda, bool(rng.random() < 0.45), last))
        if last:
            left = int(rng.integers(3, 8))
    return tuple(syllables)
