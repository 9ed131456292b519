"""Banks: excerpts, hashes, what travels to workers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glottis.augment import Bank, Sound
from glottis.errors import DataError
from glottis.rng import generator


def sound(name: str, length: int, kind: str = "noise") -> Sound:
    samples = generator(1, name).integers(-20000, 20000, length).astype(np.int16)
    return Sound(name, kind, samples)


@pytest.fixture(scope="module")
def bank() -> Bank:
    return Bank([sound("a", 100), sound("b", 7), sound("c", 1000)], 16000, "test")


def test_excerpts_are_the_samples_from_the_start_and_repeat(bank: Bank) -> None:
    excerpt = bank.excerpts([1], [5], 20)[0]
    b = sound("b", 7).samples / 32768.0
    assert np.allclose(excerpt, [b[(5 + i) % 7] for i in range(20)])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=5), st.integers(1, 300), st.data())
def test_both_ways_to_take_excerpts_agree(
    bank: Bank, clips: list[int], num_samples: int, data: st.DataObject
) -> None:
    starts = [data.draw(st.integers(0, bank.lengths[c] - 1)) for c in clips]
    one = bank.excerpts(clips, starts, num_samples)
    assert torch.equal(one, bank._gathered(clips, starts, num_samples))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(1000, 1200))
def test_both_ways_to_centre_agree_and_the_peak_comes_first(
    bank: Bank, clips: list[int], size: int
) -> None:
    one = bank.centred(clips, size)
    assert torch.equal(one, bank._centred_gathered(clips, size))
    assert one.abs().argmax(1).tolist() == [0] * len(clips)
    assert torch.equal(
        one.abs().sum(1) > 0, torch.ones(len(clips), dtype=torch.bool)
    )  # nothing lost
    whole = bank.excerpts([clips[0]], [0], bank.lengths[clips[0]])[0]
    assert float(one[0].sum()) == pytest.approx(float(whole.sum()), abs=1e-3)


def test_fingerprint_changes_with_any_sample_name_or_rate(bank: Bank) -> None:
    sounds = [sound("a", 100), sound("b", 7), sound("c", 1000)]
    assert Bank(sounds, 16000, "elsewhere").fingerprint == bank.fingerprint
    other = Sound("a", "noise", sounds[0].samples.copy())
    other.samples[50] += 1
    variants = [
        Bank([other, *sounds[1:]], 16000, "test"),
        Bank(sounds, 8000, "test"),
        Bank(sounds[:2], 16000, "test"),
        Bank([Sound("z", "noise", sounds[0].samples), *sounds[1:]], 16000, "test"),
    ]
    assert len({bank.fingerprint, *(v.fingerprint for v in variants)}) == 5


def test_silent_clips_are_left_out_and_counted() -> None:
    bank = Bank([sound("a", 100), Sound("s", "noise", np.zeros(50, np.int16))], 16000, "test")
    assert bank.names == ("a",)
    assert bank.card()["silent_clips_left_out"] == 1


def test_nothing_but_silence_is_an_error() -> None:
    with pytest.raises(DataError, match=r"\[P21\] 'test' holds no usable sound \(1 clips"):
        Bank([Sound("s", "noise", np.zeros(50, np.int16))], 16000, "test")


def test_a_pickled_bank_draws_but_holds_no_samples(bank: Bank) -> None:
    copy = pickle.loads(pickle.dumps(bank))
    assert copy.draw_start(2, 100, generator(1)) == bank.draw_start(2, 100, generator(1))
    with pytest.raises(AssertionError, match="layout and no samples"):
        _ = copy.samples
