"""Source-filter speech has the pitch, the formants and the pauses it was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from glottis.rng import generator
from glottis.synth.articulation import FRAME_HOP, SAMPLE_RATE, articulate
from glottis.synth.phones import CONSONANTS, VOWELS, Syllable, draw_text
from glottis.synth.segments import Delivery
from glottis.synth.talkers import Talker, draw_talker
from glottis.synth.utterances import Speech, speak

TALKERS = [draw_talker(generator(5, i), f"t{i}", "fm"[i % 2]) for i in range(6)]


def say(talker: Talker, content: int = 0, seconds: float = 2.0) -> Speech:
    num_samples = int(seconds * SAMPLE_RATE)
    text, voice = generator(5, "text", content), generator(5, "voice", talker.name, content)
    return speak(talker, Delivery(), num_samples, (0.2, 0.15), text, voice)


def best_period(frame: np.ndarray, period: int) -> tuple[int, float]:
    """Lag of the largest normalised autocorrelation within 30 % of ``period``, and its value."""
    lags = range(round(0.7 * period), round(1.3 * period) + 1)
    values = []
    for lag in lags:
        one, other = frame[:-lag], frame[lag:]
        values.append(one @ other / np.sqrt(one @ one * (other @ other)))
    return lags[int(np.argmax(values))], max(values)


@pytest.mark.parametrize("talker", TALKERS, ids=lambda t: f"{t.gender}-{t.f0_hz:.0f}")
def test_speech_is_finite_and_as_long_as_asked(talker: Talker) -> None:
    for seconds in (1.0, 1.737, 3.1):
        speech = say(talker, 1, seconds)
        assert speech.samples.shape == (int(seconds * SAMPLE_RATE),)
        assert np.isfinite(speech.samples).all()
        assert 0.01 < np.std(speech.samples) < 10
        assert len(speech.f0_hz) == len(speech.voiced) == len(speech.samples) // FRAME_HOP + 1


def test_edges_are_silent_and_the_middle_is_not() -> None:
    speech = say(TALKERS[0])
    level = np.sqrt(np.mean(speech.samples**2))
    assert np.max(np.abs(speech.samples[: int(0.15 * SAMPLE_RATE)])) < 1e-3 * level
    assert np.max(np.abs(speech.samples[-int(0.05 * SAMPLE_RATE) :])) < 0.05 * level
    assert np.std(speech.samples[int(0.5 * SAMPLE_RATE) : int(1.5 * SAMPLE_RATE)]) > 0.5 * level


@pytest.mark.parametrize("talker", TALKERS[:4], ids=lambda t: f"{t.gender}-{t.f0_hz:.0f}")
def test_measured_pitch_is_the_intonation(talker: Talker) -> None:
    speech = say(talker, 2, 3.0)
    centres = np.arange(10, len(speech.voiced) - 10)
    steady = [t for t in centres if speech.voiced[t - 8 : t + 9].all()]
    assert len(steady) > 50
    ratios, strengths = [], []
    for t in steady[::5]:
        period = SAMPLE_RATE / speech.f0_hz[t]
        lag, strength = best_period(
            speech.samples[t * FRAME_HOP - 320 : t * FRAME_HOP + 320], round(period)
        )
        ratios.append(lag / period)
        strengths.append(strength)
    assert np.median(strengths) > 0.8
    assert np.mean(np.abs(np.array(ratios) - 1.0) < 0.05) > 0.9


@pytest.mark.parametrize("vowel", ["a", "i", "u"])
def test_vowels_have_their_formants(vowel: str) -> None:
    talker = replace(TALKERS[1], nasality=0.0, f0_hz=100.0, accent_semitones=0.0)
    text = (Syllable("", (vowel,), "", True, False),)
    rng = generator(5, "vowel", vowel)
    tracks = articulate(text, talker, Delivery(), 16000, (0.1, 0.1), rng)
    expected = np.array(VOWELS[vowel]) * talker.formant_scale[:3]
    expected *= talker.vowel_scale[list(VOWELS).index(vowel)]
    assert np.allclose(np.median(tracks.formants_hz[40:160, :3], axis=0), expected, rtol=0.05)
    assert np.all(np.diff(tracks.formants_hz, axis=1) > 0)
    assert np.all(tracks.formants_hz < SAMPLE_RATE / 2)


def test_formants_move_through_a_sentence() -> None:
    rng = generator(5, "moving")
    text = draw_text(generator(5, "text", 3), 20)
    tracks = articulate(text, TALKERS[0], Delivery(), 48000, (0.1, 0.1), rng)
    assert np.all(np.ptp(tracks.formants_hz[:, :2], axis=0) > [250.0, 600.0])


def test_a_text_does_not_depend_on_who_says_it() -> None:
    texts = [say(talker, 7).text for talker in TALKERS]
    longest = max(texts, key=len)
    assert all(longest.startswith(text) for text in texts)  # slower talkers say less of it
    assert all(len(text.split()) >= 4 for text in texts)


def test_contents_differ() -> None:
    assert len({say(TALKERS[0], content).text for content in range(20)}) == 20


def test_delivery_moves_pitch_and_formants() -> None:
    text = draw_text(generator(5, "text", 4), 20)

    def tracks(delivery: Delivery) -> tuple[float, np.ndarray]:
        rng = generator(5, "delivery")
        result = articulate(text, TALKERS[2], delivery, 32000, (0.1, 0.1), rng)
        return float(result.f0_hz.mean()), np.median(result.formants_hz, axis=0)

    f0, formants = tracks(Delivery())
    high_f0, high_formants = tracks(Delivery(f0_factor=1.1, tract_factor=1.05))
    assert high_f0 / f0 == pytest.approx(1.1, rel=0.01)
    assert np.allclose(high_formants[:5] / formants[:5], 1.05, rtol=0.01)


def test_all_sounds_come_up() -> None:
    text = draw_text(generator(5, "all sounds"), 4000)
    assert {s.onset for s in text} == {*CONSONANTS, ""}
    assert {v for s in text for v in s.vowels} == set(VOWELS)
    assert 0.3 < np.mean([s.stressed for s in text]) < 0.6
