"""Samplers: pure functions of (seed, step); every clip counted; no speaker twice in a group."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glottis.data.sampler import BalancedSampler, FlatSampler, GroupedSampler
from glottis.errors import DataError


@given(st.integers(1, 60), st.integers(1, 17), st.integers(0, 5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_an_epoch_of_a_flat_sampler_holds_every_row_once(
    rows: int, size: int, epoch: int, drop_last: bool
) -> None:
    if drop_last and rows < size:
        with pytest.raises(DataError):
            FlatSampler(rows, size, 1, drop_last=True)
        return
    sampler = FlatSampler(rows, size, 1, drop_last=drop_last)
    first = epoch * sampler.steps_per_epoch
    seen = np.concatenate([sampler.plan(first + i) for i in range(sampler.steps_per_epoch)])
    assert len(set(seen.tolist())) == len(seen)
    assert len(seen) == (rows // size * size if drop_last else rows)


def test_plans_do_not_depend_on_what_was_asked_before() -> None:
    one, other = (FlatSampler(100, 8, 3, drop_last=True) for _ in range(2))
    late = other.plan(40)
    for step in range(41):
        last = one.plan(step)
    np.testing.assert_array_equal(last, late)


def test_epochs_and_seeds_differ() -> None:
    sampler = FlatSampler(1000, 1000, 3, drop_last=True)
    assert not np.array_equal(sampler.plan(0), sampler.plan(1))
    assert not np.array_equal(sampler.plan(0), FlatSampler(1000, 1000, 4, drop_last=True).plan(0))


def test_balanced_batches_hold_every_class_equally() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    sampler = BalancedSampler(labels, 20, seed=1)
    counts = np.zeros(100, int)
    for step in range(45):
        rows = sampler.plan(step)
        assert (labels[rows] == 0).sum() == 10
        np.add.at(counts, rows, 1)
    assert counts[:90].tolist() == [5] * 90  # 450 draws over 90 clips
    assert counts[90:].tolist() == [45] * 10
    np.testing.assert_array_equal(sampler.plan(7), BalancedSampler(labels, 20, 1).plan(7))


def test_balanced_batches_of_odd_size_differ_by_one_at_most() -> None:
    labels = np.array([0] * 5 + [1] * 5 + [2] * 5)
    rows = BalancedSampler(labels, 7, 1).plan(2)
    counts = np.bincount(labels[rows])
    assert counts.max() - counts.min() <= 1


@given(st.lists(st.integers(1, 12), min_size=6, max_size=20), st.integers(2, 4), st.integers(2, 3))
@settings(max_examples=40, deadline=None)
def test_no_speaker_is_twice_in_a_grouped_batch(
    clips: list[int], speakers: int, utterances: int
) -> None:
    labels = np.repeat(np.arange(len(clips)), clips)
    enough = sum(count >= utterances for count in clips)
    if enough < speakers:
        with pytest.raises(DataError, match="a batch needs"):
            GroupedSampler(labels, speakers, utterances, 5)
        return
    sampler = GroupedSampler(labels, speakers, utterances, 5)
    for epoch in range(2):
        used: list[int] = []
        for place in range(sampler.steps_per_epoch):
            rows = sampler.plan(epoch * sampler.steps_per_epoch + place)
            grouped = labels[rows].reshape(speakers, utterances)
            assert (grouped == grouped[:, :1]).all()
            assert len(set(grouped[:, 0].tolist())) == speakers
            used += rows.tolist()
        assert len(used) == len(set(used))


def test_speakers_with_too_few_clips_are_reported_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    labels = np.array([0, 0, 1, 2, 2, 2])
    with caplog.at_level("WARNING"):
        sampler = GroupedSampler(labels, 2, 2, 1)
    assert "1 of 3 speakers have fewer than 2 clips" in caplog.text
    assert 2 not in sampler.plan(0)
    np.testing.assert_array_equal(sampler.plan(3), GroupedSampler(labels, 2, 2, 1).plan(3))


def test_an_empty_table_is_a_clear_error() -> None:
    with pytest.raises(DataError, match="empty"):
        FlatSampler(0, 4, 1, drop_last=False)
    with pytest.raises(DataError, match="empty"):
        BalancedSampler(np.zeros(0, int), 4, 1)
