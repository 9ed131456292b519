"""Attacks keep what is said, how long and how loud; they change the fine structure."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from glottis.rng import generator
from glottis.synth.articulation import SAMPLE_RATE
from glottis.synth.segments import Delivery
from glottis.synth.spoofs import ATTACKS
from glottis.synth.talkers import draw_talker
from glottis.synth.utterances import Speech, speak
from glottis.synth.vocoder import amplitude_spectra


@cache
def original(talker: int) -> Speech:
    voice = draw_talker(generator(9, talker), f"t{talker}", "fm"[talker % 2])
    text = generator(9, "text", talker)
    return speak(voice, Delivery(), 33333, (0.2, 0.2), text, generator(9, "voice", talker))


@cache
def attacked(name: str, talker: int) -> np.ndarray:
    return ATTACKS[name](original(talker), generator(9, name, talker))


CASES = [(name, talker) for name in ATTACKS for talker in range(4)]


def test_there_are_five_attacks() -> None:
    assert sorted(ATTACKS) == ["S01", "S02", "S03", "S04", "S05"]


@pytest.mark.parametrize(("name", "talker"), CASES)
def test_length_and_level_stay(name: str, talker: int) -> None:
    clean, spoofed = original(talker).samples, attacked(name, talker)
    assert spoofed.shape == clean.shape
    assert np.isfinite(spoofed).all()
    assert abs(20 * np.log10(np.std(spoofed) / np.std(clean))) < 4.5


@pytest.mark.parametrize(("name", "talker"), CASES)
def test_the_same_is_said_at_the_same_time(name: str, talker: int) -> None:
    num_frames = len(original(talker).f0_hz)
    before = np.log(amplitude_spectra(original(talker).samples, num_frames)[:, 4:200] + 1e-3)
    after = np.log(amplitude_spectra(attacked(name, talker), num_frames)[:, 4:200] + 1e-3)
    bands = [slice(k, k + 28) for k in range(0, 196, 28)]
    for band in bands:
        one, other = before[:, band].mean(axis=1), after[:, band].mean(axis=1)
        assert np.corrcoef(one, other)[0, 1] > 0.8


@pytest.mark.parametrize(("name", "talker"), CASES)
def test_the_waveform_is_another(name: str, talker: int) -> None:
    clean, spoofed = original(talker).samples, attacked(name, talker)
    spectrum = np.fft.rfft(clean, 65536) * np.conj(np.fft.rfft(spoofed, 65536))
    correlation = np.abs(np.fft.irfft(spectrum))
    assert correlation.max() < 0.95 * np.linalg.norm(clean) * np.linalg.norm(spoofed)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_an_attack_is_a_function_of_its_stream(name: str) -> None:
    again = ATTACKS[name](original(0), generator(9, name, 0))
    other = ATTACKS[name](original(0), generator(9, name, "other"))
    assert np.array_equal(again, attacked(name, 0))
    assert not np.array_equal(other, again)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_silence_at_the_edges_stays_far_below_the_speech(name: str) -> None:
    for talker in range(4):
        spoofed = attacked(name, talker)
        edge = spoofed[: int(0.12 * SAMPLE_RATE)]
        assert np.std(edge) < 0.02 * np.std(spoofed)


def test_vocoders_have_no_jitter() -> None:
    """What a countermeasure may learn: periods of S02 are more regular than those of a throat."""

    def irregularity(samples: np.ndarray, talker: int) -> float:
        speech = original(talker)
        values = []
        for frame in np.flatnonzero(speech.voiced)[10:-10:4]:
            centre, period = frame * 80, round(SAMPLE_RATE / speech.f0_hz[frame])
            if not speech.voiced[frame - 8 : frame + 9].all():
                continue
            one = samples[centre - period : centre + period]
            best = max(
                np.dot(one, other) / np.sqrt(np.dot(one, one) * np.dot(other, other) + 1e-20)
                for shift in range(period - 8, period + 9)
                for other in [samples[centre - period + shift : centre + period + shift]]
            )
            values.append(1.0 - best)
        return float(np.mean(values))

    natural = np.mean([irregularity(original(t).samples, t) for t in range(4)])
    vocoded = np.mean([irregularity(attacked("S02", t), t) for t in range(4)])
    assert vocoded < 0.8 * natural
