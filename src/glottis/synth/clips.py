"""Which clips a corpus has, and how one of them is made.

The plan is a pure function of the configuration; a clip is a pure function of the seed and its
place in the plan.  Nothing depends on the order or the process in which clips are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from glottis.config import Config
from glottis.rng import generator
from glottis.synth.articulation import SAMPLE_RATE
from glottis.synth.sessions import Session, draw_delivery, draw_session, record
from glottis.synth.spoofs import ATTACKS
from glottis.synth.talkers import GENDERS, Talker, draw_talker
from glottis.synth.utterances import Speech, speak

SPLITS = ("train", "dev", "eval")


class SynthConfig(Config):
    """Sizes of a synthetic corpus.  Splits have different talkers; genders alternate."""

    seed: int = 0
    """Everything is drawn from it."""
    train_talkers: int = Field(40, ge=2)
    """Talkers to train on."""
    dev_talkers: int = Field(10, ge=4)
    """Talkers for selection; at least two per gender, or there would be no non-target trials."""
    eval_talkers: int = Field(14, ge=4)
    """Talkers for the final numbers."""
    clips_per_talker: int = Field(14, ge=2)
    """Bona fide clips of each talker."""
    sessions_per_talker: int = Field(4, ge=2)
    """Rooms and days of each talker; clips take turns."""
    clips_per_attack: int = Field(3, ge=1)
    """Spoofed clips of each talker with each known attack."""
    clips_held_out: int = Field(8, ge=1)
    """Spoofed clips of each evaluation talker with the held-out attack."""
    held_out: str = "S04"
    """The attack that only the evaluation split contains."""
    min_seconds: float = Field(1.8, ge=1.0)
    """Length of the shortest clip."""
    max_seconds: float = Field(3.2, le=60.0)
    """Length of the longest clip."""
    num_trials: int = Field(2000, ge=2)
    """Trials of each list, half of them targets; fewer where there are not enough pairs."""

    @model_validator(mode="after")
    def _consistent(self) -> SynthConfig:
        if self.held_out not in ATTACKS:
            raise ValueError(f"held_out must be one of {', '.join(ATTACKS)}, not {self.held_out}")
        if self.max_seconds < self.min_seconds:
            raise ValueError("max_seconds must not be below min_seconds")
        if self.sessions_per_talker > self.clips_per_talker:
            raise ValueError("sessions_per_talker must not exceed clips_per_talker")
        return self


def tiny_config(seed: int = 0) -> SynthConfig:
    """The smallest corpus with every part: twelve talkers, 1.5 s clips; a few seconds of work."""
    return SynthConfig(
        seed=seed,
        train_talkers=4,
        dev_talkers=4,
        eval_talkers=4,
        clips_per_talker=4,
        sessions_per_talker=2,
        clips_per_attack=1,
        clips_held_out=2,
        min_seconds=1.4,
        max_seconds=1.6,
        num_trials=200,
    )


@dataclass(frozen=True)
class Clip:
    """One planned clip; ``attack`` is empty for bona fide speech."""

    utterance: str
    talker: str
    gender: str
    split: str
    session: int
    attack: str
    num_samples: int

    @property
    def path(self) -> str:
        """Relative to the corpus; it says nothing about the label."""
        return f"audio/{self.talker}/{self.utterance}.flac"

    @property
    def session_name(self) -> str:
        """Unique in the corpus."""
        return f"{self.talker}-{self.session}"

    @property
    def label(self) -> str:
        """bonafide or spoof."""
        return "spoof" if self.attack else "bonafide"


def plan(config: SynthConfig) -> tuple[tuple[Clip, ...], ...]:
    """The clips of every talker."""
    return tuple(
        tuple(_plan_talker(config, split, index)) for split, index in _talker_places(config)
    )


def _talker_places(config: SynthConfig) -> Iterator[tuple[str, int]]:
    counts = (config.train_talkers, config.dev_talkers, config.eval_talkers)
    index = 0
    for split, count in zip(SPLITS, counts, strict=True):
        for _ in range(count):
            yield split, index
            index += 1


def _plan_talker(config: SynthConfig, split: str, index: int) -> Iterator[Clip]:
    attacks = [""] * config.clips_per_talker
    for attack in ATTACKS:
        if attack != config.held_out:
            attacks += [attack] * config.clips_per_attack
        elif split == "eval":
            attacks += [attack] * config.clips_held_out
    talker = f"T{index:03d}"
    rng = generator(config.seed, "plan", talker)
    numbers = rng.permutation(len(attacks))  # the name of a clip does not tell its label
    low, high = (int(s * SAMPLE_RATE) for s in (config.min_seconds, config.max_seconds))
    turns = {"bonafide": 0, "spoof": int(rng.integers(config.sessions_per_talker))}
    for number, attack in sorted(zip(numbers.tolist(), attacks, strict=True)):
        label = "spoof" if attack else "bonafide"
        turns[label] += 1
        yield Clip(
            utterance=f"{talker}-{number:03d}",
            talker=talker,
            gender=GENDERS[index % len(GENDERS)],
            split=split,
            session=turns[label] % config.sessions_per_talker,
            attack=attack,
            num_samples=int(rng.integers(low, high + 1)),
        )


def talker_of(seed: int, name: str, gender: str) -> Talker:
    """The talker with this name."""
    return draw_talker(generator(seed, "talker", name), name, gender)


def session_of(seed: int, name: str) -> Session:
    """The session with this name."""
    return draw_session(generator(seed, "session", name), name)


def clean_speech(seed: int, clip: Clip, talker: Talker, session: Session) -> Speech:
    """What the talker says, before any attack and any room."""
    rng = generator(seed, "voice", clip.utterance)
    delivery = draw_delivery(session, rng)
    edges = (float(rng.uniform(0.05, 0.3)), float(rng.uniform(0.05, 0.3)))
    text = generator(seed, "text", clip.utterance)
    return speak(talker, delivery, clip.num_samples, edges, text, rng)


def make_clip(seed: int, clip: Clip, talker: Talker, session: Session) -> np.ndarray:
    """The recorded clip: (S,) int16."""
    speech = clean_speech(seed, clip, talker, session)
    samples = speech.samples
    if clip.attack:
        samples = ATTACKS[clip.attack](speech, generator(seed, "attack", clip.utterance))
    assert np.isfinite(samples).all(), f"{clip.utterance} is not finite"
    assert samples.any(), f"{clip.utterance} is silent"
    return record(samples, session, generator(seed, "record", clip.utterance))
