"""Crops: pure functions of (seed, step, item); short clips by policy; broken clips replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import torch

from glottis.data.batch import Batch
from glottis.data.dataset import CropDataset, Draw
from glottis.data.loader import Loader, LoaderOptions
from glottis.data.sampler import FlatSampler, GroupedSampler
from glottis.errors import AudioError, DataError


class RampSource:
    """Clip r holds r * 1000 + 0, 1, 2, ...; some rows cannot be read."""

    sample_rate = 16000

    def __init__(self, lengths: list[int], broken: tuple[int, ...] = ()) -> None:
        self.lengths, self.broken = lengths, broken

    def num_samples(self, row: int) -> int:
        if row in self.broken:
            raise AudioError(f"clip {row} is damaged")
        return self.lengths[row]

    def read(self, row: int, start: int, count: int) -> np.ndarray:
        stop = min(start + count, self.num_samples(row))
        return (row * 1000 + np.arange(start, stop)).astype(np.int16)


def dataset(
    lengths: list[int],
    labels: list[int] | None = None,
    *,
    broken: tuple[int, ...] = (),
    crop: int = 50,
    short: Literal["repeat", "zero"] = "repeat",
    augmenter: Any = None,
    group: int = 0,
) -> CropDataset:
    classes = np.array(labels if labels is not None else [0] * len(lengths))
    return CropDataset(
        RampSource(lengths, broken),
        classes,
        [f"u{i}" for i in range(len(lengths))],
        crop_samples=crop,
        short_clips=short,
        seed=7,
        num_classes=int(classes.max()) + 1,
        augmenter=augmenter,
        group=group,
    )


def crops(data: CropDataset, rows: list[int], step: int = 0) -> Batch:
    return data.__getitems__([Draw(step, i, row) for i, row in enumerate(rows)])


def test_a_crop_is_a_piece_of_its_clip_at_a_drawn_place() -> None:
    starts = set()
    for step in range(40):
        batch = crops(dataset([100, 400]), [1], step)
        wave = batch.wave[0].numpy()
        np.testing.assert_array_equal(np.diff(wave), 1)
        starts.add(int(wave[0]) - 1000)
    assert min(starts) >= 0
    assert max(starts) <= 350
    assert len(starts) > 30


def test_every_place_of_a_clip_can_be_drawn() -> None:
    starts = {int(crops(dataset([52]), [0], step).wave[0, 0]) for step in range(60)}
    assert starts == {0, 1, 2}


def test_item_i_of_step_s_does_not_depend_on_its_neighbours() -> None:
    data = dataset([300, 300, 300])
    both = crops(data, [0, 1, 2], step=5)
    alone = data.__getitems__([Draw(5, 2, 2)])
    assert torch.equal(both.wave[2], alone.wave[0])


def test_short_clips_are_repeated_from_a_random_offset() -> None:
    batch = crops(dataset([20]), [0])
    wave = batch.wave[0].numpy()
    assert batch.num_samples.tolist() == [50]
    assert set(wave.tolist()) == set(range(20))
    np.testing.assert_array_equal((wave[1:] - wave[:-1]) % 20, 1)
    firsts = {int(crops(dataset([20]), [0], step).wave[0, 0]) for step in range(80)}
    assert len(firsts) > 15


def test_short_clips_are_zero_padded_with_their_length_when_asked() -> None:
    batch = crops(dataset([20, 60], short="zero"), [0, 1])
    assert batch.num_samples.tolist() == [20, 50]
    assert batch.wave[0, 20:].abs().sum() == 0
    assert batch.wave[0, 19] == 19


def test_a_broken_clip_is_reported_and_replaced_by_one_of_its_class() -> None:
    data = dataset([100] * 6, [0, 0, 0, 1, 1, 1], broken=(1,))
    batch = crops(data, [0, 1, 4])
    assert [b.utterance for b in batch.broken] == ["u1"]
    assert "damaged" in batch.broken[0].reason
    assert batch.rows[1].item() in (0, 2)
    assert batch.labels.tolist() == [0, 0, 1]
    assert batch.wave[1].abs().sum() > 0
    again = crops(dataset([100] * 6, [0, 0, 0, 1, 1, 1], broken=(1,)), [0, 1, 4])
    assert torch.equal(batch.wave, again.wave)
    assert crops(data, [1], step=1).broken == ()  # said once


def test_a_class_of_broken_clips_stops_with_a_clear_error() -> None:
    data = dataset([100] * 4, [0, 0, 1, 1], broken=(0, 1))
    with pytest.raises(DataError, match="could not be read"):
        crops(data, [0])


def test_an_empty_clip_counts_as_broken() -> None:
    assert len(crops(dataset([0, 100]), [0, 0, 0], step=3).broken) == 1


@dataclass(frozen=True)
class Factor:
    value: float


class HalfSpeed:
    """Needs more source samples, and counts as another class every second time."""

    def draw(
        self, rng: np.random.Generator, num_samples: int, strength: float = 1.0
    ) -> tuple[Any, ...]:
        return (Factor(1.5 if rng.random() < 0.5 else 1.0),)

    def source_samples(self, params: tuple[Any, ...], num_samples: int) -> int:
        return round(num_samples * params[0].value)

    def label_offset(self, params: tuple[Any, ...]) -> int:
        return int(params[0].value > 1)


def test_speed_copies_take_more_samples_and_another_class() -> None:
    data = dataset([400] * 3, [0, 1, 2], augmenter=HalfSpeed())
    batch = crops(data, [0, 1, 2, 0, 1, 2, 0, 1])
    fast = torch.tensor([p[0].value > 1 for p in batch.params])
    assert fast.any()
    assert not fast.all()
    assert batch.wave.shape == (8, 75)
    assert batch.num_samples.tolist() == [50] * 8  # after the change of speed
    assert batch.labels.tolist() == [
        row % 3 + 3 * int(f) for row, f in zip([0, 1, 2, 0, 1, 2, 0, 1], fast, strict=True)
    ]


# ------------------------------------------------------------------------------ batches


def test_splitting_keeps_groups_whole_and_loses_nothing() -> None:
    batch = crops(dataset([100] * 10, [i // 2 for i in range(10)], group=2), list(range(10)))
    parts = batch.split(3)
    assert sum(len(p.labels) for p in parts) == 10
    assert all(len(p.labels) % 2 == 0 for p in parts)
    assert [p.is_last for p in parts] == [False, False, True]
    assert torch.equal(torch.cat([p.wave for p in parts]), batch.wave)


def test_more_parts_than_items_are_no_empty_parts() -> None:
    parts = crops(dataset([100] * 3), [0, 1, 2]).split(8)
    assert [len(p.labels) for p in parts] == [1, 1, 1]


# ------------------------------------------------------------------------------ the stream


def stream(workers: int, start: int, stop: int, **options: Any) -> list[Batch]:
    data = dataset([100 + i for i in range(12)])
    sampler = FlatSampler(12, 4, 7, drop_last=True)
    loader = Loader(data, sampler, LoaderOptions(workers=workers, **options))
    return list(loader.batches(start, stop))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        x.step == y.step and torch.equal(x.wave, y.wave) and torch.equal(x.rows, y.rows)
        for x, y in zip(a, b, strict=True)
    )


one_core = torch._utils.cpu_count() == 1
two_workers = pytest.mark.skipif(one_core, reason="torch warns about more workers than cores")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"workers": 2}, marks=two_workers),
        {"workers": 1, "prefetch": 1},
        pytest.param({"workers": 2, "persistent_workers": False}, marks=two_workers),
        {"workers": 1, "start_method": "spawn"},
    ],
    ids=str,
)
def test_batches_do_not_depend_on_how_they_are_made(options: dict[str, Any]) -> None:
    reference = stream(0, 0, 7)
    assert same(stream(**{"start": 0, "stop": 7, **options}), reference)


@two_workers
def test_a_stream_begins_at_any_step() -> None:
    assert same(stream(2, 4, 9), stream(0, 0, 9)[4:])


def test_processes_share_a_batch_without_overlap() -> None:
    data, sampler = dataset([100] * 12), FlatSampler(12, 4, 7, drop_last=True)
    whole = next(Loader(data, sampler, LoaderOptions(workers=0)).batches(3, 4))
    halves = [
        next(Loader(data, sampler, LoaderOptions(workers=0), rank=r, world=2).batches(3, 4))
        for r in range(2)
    ]
    assert torch.equal(torch.cat([h.wave for h in halves]), whole.wave)


def test_no_process_is_left_without_a_clip_at_the_end_of_an_epoch() -> None:
    data, options = dataset([100] * 9), LoaderOptions(workers=0)
    sampler = FlatSampler(9, 4, 7, drop_last=False)
    with pytest.raises(DataError, match="1 clips for 2 processes"):
        Loader(data, sampler, options, rank=0, world=2)
    sampler = FlatSampler(9, 6, 7, drop_last=False)
    last = [next(Loader(data, sampler, options, rank=r, world=2).batches(1, 2)) for r in (0, 1)]
    assert sorted(torch.cat([b.rows for b in last]).tolist()) == sorted(sampler.plan(1).tolist())


def test_a_batch_that_does_not_divide_over_the_processes_is_refused() -> None:
    data = dataset([100] * 12, [i // 2 for i in range(12)], group=2)
    sampler = GroupedSampler(data.labels, 3, 2, 7)
    with pytest.raises(DataError, match="does not divide"):
        Loader(data, sampler, LoaderOptions(), rank=0, world=2)
