"""Reading a packed store: slices without a copy, from many processes, and never the wrong bytes."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glottis.audio import PackedStore, pack
from glottis.errors import DataError
from helpers.packing import make_items


@pytest.fixture(scope="module", params=["pcm16", "flac"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp(request.param)
    pack(make_items(base / "in", 15), base / "out", codec=request.param, workers=0)
    return base / "out"


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A store that a test may damage."""
    target = tmp_path / "store"
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@given(data=st.data())
def test_a_part_is_the_slice_of_the_whole_clip(folder: Path, data: st.DataObject) -> None:
    store = PackedStore(folder)
    index = data.draw(st.integers(0, len(store) - 1))
    length = store.num_samples(index)
    start = data.draw(st.integers(0, length))
    num = data.draw(st.integers(0, length - start))
    part = store.read(index, start, num)
    assert part.dtype == np.int16
    assert np.array_equal(part, store.read(index)[start : start + num])
    assert len(store.read(index, start)) == length - start


def test_a_crop_of_pcm16_is_a_view_that_cannot_be_written(folder: Path) -> None:
    store = PackedStore(folder)
    if store.codec == "flac":
        assert store.read(0, 10, 100).flags.owndata
        return
    whole, part = store.read(2), store.read(2, 100, 500)
    assert np.shares_memory(whole, part)
    assert not part.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 1


@pytest.mark.parametrize(
    ("start", "num"), [(-1, 5), (0, 10**6), (10**6, 0), (5, -1), (10**6, None)]
)
def test_reading_beyond_a_clip_is_an_error_not_the_next_clip(
    folder: Path, start: int, num: int | None
) -> None:
    with pytest.raises(IndexError):
        PackedStore(folder).read(3, start, num)
    with pytest.raises(IndexError):
        PackedStore(folder).read(15)


def test_utterances_are_found_by_name(folder: Path) -> None:
    store = PackedStore(folder)
    names = store.utterances
    assert len(names) == len(store) == 15
    assert [store.index_of(name) for name in names] == list(range(15))
    assert store.indices_of(names[::-1]).tolist() == list(range(15))[::-1]
    assert names[4] in store
    assert "nobody" not in store
    assert store.lengths.sum() == sum(store.num_samples(k) for k in range(15))
    for look_up in (
        lambda: store.index_of("nobody"),
        lambda: store.indices_of([names[0], "nobody"]),
    ):
        with pytest.raises(DataError, match="1 utterances are not in this store: nobody"):
            look_up()


def _checksum(store: PackedStore, index: int) -> int:
    return int(store.read(index).astype(np.int64).sum())


def test_many_processes_read_one_store(folder: Path) -> None:
    store = PackedStore(folder)
    expected = [_checksum(store, k) for k in range(15)]  # maps the shard before the pickling
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(_checksum, [(store, k) for k in range(15)]) == expected
    clone = pickle.loads(pickle.dumps(store))
    assert _checksum(clone, 7) == expected[7]


def test_a_changed_byte_is_found_and_named(copy: Path) -> None:
    store = PackedStore(copy)
    assert store.verify() == 15
    offset, shard = int(store._offset[5]) + 40, next(copy.glob("shard-*"))
    content = bytearray(shard.read_bytes())
    content[offset] ^= 1
    shard.write_bytes(content)
    seen: list[tuple[int, int]] = []
    with pytest.raises(DataError, match=r"1 clips are damaged .*: speaker2/clip5") as caught:
        PackedStore(copy).verify(lambda done, total: seen.append((done, total)))
    assert "copy the store again" in caught.value.fix
    assert seen[-1] == (15, 15)


def test_an_incomplete_copy_is_refused(copy: Path) -> None:
    shard = next(copy.glob("shard-*"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    with pytest.raises(DataError, match=rf"{len(content) - 10} bytes, {len(content)} bytes were"):
        PackedStore(copy)
    shard.unlink()
    with pytest.raises(DataError, match="missing"):
        PackedStore(copy)


def test_a_damaged_flac_clip_is_an_error_when_it_is_read(copy: Path) -> None:
    store = PackedStore(copy)
    if store.codec == "pcm16":
        return  # only verify() can see it
    shard = next(copy.glob("shard-*"))
    content = bytearray(shard.read_bytes())
    start, size = int(store._offset[5]), int(store._num_bytes[5])
    content[start + size // 2 : start + size // 2 + 100] = bytes(100)
    shard.write_bytes(content)
    with pytest.raises(DataError, match="1 clips are damaged"):
        PackedStore(copy).read(5)


def test_what_is_not_a_finished_store_of_this_version_is_refused(
    copy: Path, tmp_path: Path
) -> None:
    meta = json.loads((copy / "pack.json").read_bytes())
    for change, reason in (
        ({"version": 2, "glottis": "9.1"}, "has store format 2; this Glottis reads up to 1"),
        ({"finished": False}, "packing was not finished"),
        ({"format": "zip"}, "does not describe a packed store"),
        ({"num_utterances": 3}, "do not belong together"),
    ):
        (copy / "pack.json").write_text(json.dumps(meta | change), encoding="utf-8")
        with pytest.raises(DataError, match=reason):
            PackedStore(copy)
    (copy / "pack.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="does not describe a packed store"):
        PackedStore(copy)
    (copy / "pack.json").write_text(json.dumps(meta), encoding="utf-8")
    (copy / "index.arrow").write_bytes(b"no index")
    with pytest.raises(DataError, match="the index cannot be read"):
        PackedStore(copy)
    with pytest.raises(DataError, match="is not a packed store"):
        PackedStore(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        PackedStore(tmp_path / "nothing")


def test_too_many_shards_for_the_open_file_limit_are_explained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PackedStore(folder)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("mmap.mmap", refuse)
    with pytest.raises(DataError, match=r"cannot be mapped[^$]*ulimit -n"):
        store.read(0)
