"""No single number gives the label or the talker away, and yet both can be learned.

Measured on a generated corpus of 20 talkers; the checks are those of audit A in the reference on
countermeasures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import soundfile
from scipy import fft

from glottis.data.manifest import Manifest
from glottis.data.protocols import EvaluationProtocol
from glottis.score.eer import eer
from glottis.synth import SynthConfig, SynthCorpus, generate
from glottis.synth.clips import clean_speech, plan, session_of, talker_of

RATE = 16000
CONFIG = SynthConfig(
    seed=3,
    train_talkers=12,
    dev_talkers=4,
    eval_talkers=4,
    clips_per_talker=8,
    sessions_per_talker=4,
    clips_per_attack=2,
    clips_held_out=4,
    min_seconds=1.4,
    max_seconds=1.8,
)
NUMBERS = (
    "duration", "rms", "peak", "crest", "roll-off", "leading silence", "trailing silence",
    "offset", "zero crossings", "noise floor",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """The corpus in memory: N clips."""

    corpus: SynthCorpus
    manifest: Manifest
    numbers: dict[str, np.ndarray]
    statistics: np.ndarray

    def column(self, name: str) -> np.ndarray:
        return self.manifest.column(name)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    corpus = generate(tmp_path_factory.mktemp("shortcuts") / "corpus", CONFIG)
    manifest = Manifest.read(corpus.manifest)
    waves = [soundfile.read(corpus.root / path)[0] for path in manifest.column("path")]
    rows = [one_number_features(wave) for wave in waves]
    numbers = {name: np.array([row[name] for row in rows]) for name in NUMBERS}
    return Measured(corpus, manifest, numbers, np.array([cepstral_statistics(w) for w in waves]))


def one_number_features(wave: np.ndarray) -> dict[str, float]:
    """What a lazy model could look at; silence is what is 30 dB below the loudest 20 ms."""
    frames = wave[: len(wave) // 320 * 320].reshape(-1, 320)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    active = np.flatnonzero(level > level.max() - 30)
    power = np.cumsum(np.abs(fft.rfft(wave)) ** 2)
    rms, peak = np.sqrt(np.mean(wave**2)), np.max(np.abs(wave))
    return {
        "duration": len(wave) / RATE,
        "rms": rms,
        "peak": peak,
        "crest": peak / rms,
        "roll-off": np.searchsorted(power, 0.99 * power[-1]) * RATE / len(wave),
        "leading silence": active[0],
        "trailing silence": len(level) - active[-1],
        "offset": wave.mean(),
        "zero crossings": np.mean(np.signbit(wave[1:]) != np.signbit(wave[:-1])),
        "noise floor": np.percentile(level, 5),
    }


@cache
def bank() -> np.ndarray:
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 42) / 2595) - 1)
    hz = np.linspace(0, 8000, 257)
    rising = (hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - hz) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling)).T


def cepstral_statistics(wave: np.ndarray) -> np.ndarray:
    """(109,): means of 19 cepstra in active frames, then means and spreads for the label."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, 400)[::160] * np.hanning(400)
    mel = np.log(np.abs(fft.rfft(frames, 512, axis=1)) ** 2 @ bank() + 1e-9)
    cepstra = fft.dct(mel, axis=1, norm="ortho")[:, :30]
    active = cepstra[:, 0] > np.percentile(cepstra[:, 0], 40)
    parts = [
        cepstra[active, 1:20].mean(axis=0),
        cepstra[:, 1:].mean(axis=0),
        cepstra.std(axis=0),
        np.diff(cepstra, axis=0).std(axis=0),
    ]
    return np.concatenate(parts)


def best_eer(one: np.ndarray, other: np.ndarray) -> float:
    """Of a threshold in the better direction."""
    return min(eer(one, other).value, eer(-one, -other).value)


def pairs(measured: Measured, splits: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first, second, target) of all pairs of one gender across sessions, bona fide only."""
    usable = (measured.column("label") == "bonafide") & np.isin(measured.column("split"), splits)
    rows = np.flatnonzero(usable)
    first, second = np.triu_indices(len(rows), 1)
    first, second = rows[first], rows[second]
    keep = measured.column("gender")[first] == measured.column("gender")[second]
    keep &= measured.column("session")[first] != measured.column("session")[second]
    first, second = first[keep], second[keep]
    return first, second, measured.column("speaker")[first] == measured.column("speaker")[second]


@pytest.mark.parametrize("name", NUMBERS)
def test_no_single_number_tells_spoofed_from_bona_fide(measured: Measured, name: str) -> None:
    bonafide = measured.column("label") == "bonafide"
    values = measured.numbers[name]
    assert best_eer(values[bonafide], values[~bonafide]) >= 0.35


@pytest.mark.parametrize("name", NUMBERS)
def test_no_single_number_tells_talkers_apart(measured: Measured, name: str) -> None:
    first, second, target = pairs(measured, ("train", "dev", "eval"))
    scores = -np.abs(measured.numbers[name][first] - measured.numbers[name][second])
    assert eer(scores[target], scores[~target]).value > 0.35


def test_mean_pitch_alone_is_a_poor_verifier(measured: Measured) -> None:
    """Even the true mean F0 of every clip, as no analyser could measure it."""
    session = cache(lambda name: session_of(CONFIG.seed, name))
    pitch = np.zeros(len(measured.manifest))
    clips = [clip for group in plan(CONFIG) for clip in group]
    for row, clip in enumerate(clips):
        if not clip.attack:
            talker = talker_of(CONFIG.seed, clip.talker, clip.gender)
            speech = clean_speech(CONFIG.seed, clip, talker, session(clip.session_name))
            pitch[row] = np.log(speech.f0_hz[speech.voiced]).mean()
    assert [clip.utterance for clip in clips] == list(measured.column("utterance"))
    first, second, target = pairs(measured, ("train", "dev", "eval"))
    scores = -np.abs(pitch[first] - pitch[second])
    assert 0.25 < eer(scores[target], scores[~target]).value < 0.48


def test_levels_and_lengths_have_one_distribution(measured: Measured) -> None:
    bonafide = measured.column("label") == "bonafide"
    decibels = 20 * np.log10(measured.numbers["rms"])
    assert abs(decibels[bonafide].mean() - decibels[~bonafide].mean()) < 1.0
    assert abs(decibels[bonafide].std() / decibels[~bonafide].std() - 1) < 0.25
    seconds = measured.numbers["duration"]
    assert abs(seconds[bonafide].mean() - seconds[~bonafide].mean()) < 0.05
    assert measured.numbers["peak"].max() < 1.0


def test_channels_are_the_same_for_both_labels(measured: Measured) -> None:
    bonafide = measured.column("label") == "bonafide"
    for channel in set(measured.column("channel")):
        here = measured.column("channel") == channel
        assert abs(here[bonafide].mean() - here[~bonafide].mean()) < 0.06, channel


def test_talkers_can_be_learned_across_sessions(measured: Measured) -> None:
    """Cosine of mean cepstra, standardised on the training talkers."""
    embeddings = measured.statistics[:, :19]
    train = embeddings[measured.column("split") == "train"]
    embeddings = (embeddings - train.mean(axis=0)) / train.std(axis=0)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    first, second, target = pairs(measured, ("dev", "eval"))
    scores = np.sum(embeddings[first] * embeddings[second], axis=1)
    assert eer(scores[target], scores[~target]).value < 0.35


def test_known_attacks_can_be_learned(measured: Measured) -> None:
    """Ridge regression on cepstral statistics, trained and tested on different talkers."""
    label = np.where(measured.column("label") == "bonafide", 1.0, -1.0)
    train = measured.column("split") == "train"
    x = measured.statistics[:, 19:]
    x = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    weights = np.linalg.solve(
        x[train].T @ x[train] + 10 * np.eye(x.shape[1]), x[train].T @ label[train]
    )
    protocol = EvaluationProtocol.read(measured.corpus.protocols["eval_known"])
    scores = x[protocol.rows(measured.manifest)] @ weights
    assert eer(scores[protocol.bonafide], scores[~protocol.bonafide]).value < 0.30
