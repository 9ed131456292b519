"""The clip cache: bounded by bytes, the least recently used clip leaves first, honest counters."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glottis.audio import ClipCache
from glottis.errors import AudioError, ConfigError

KILO = 1024 / 2**20  # one kibibyte in mebibytes


def clip(size: int, value: int = 0) -> Callable[[], NDArray[np.int16]]:
    return lambda: np.full(size // 2, value, np.int16)


def test_the_least_recently_used_clip_leaves_first() -> None:
    cache = ClipCache(3 * KILO)
    for name in "abc":
        cache.get(name, clip(1024))
    cache.get("a", clip(1024))
    cache.get("d", clip(1024))  # b is the oldest now
    assert (cache.hits, cache.misses, cache.bytes) == (1, 4, 3 * 1024)
    cache.get("a", clip(1024))
    assert cache.hits == 2
    cache.get("b", clip(1024))
    assert (cache.hits, cache.misses) == (2, 5)
    assert cache.hit_rate == pytest.approx(2 / 7)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60)), max_size=60))
def test_the_bound_holds_and_every_clip_is_right(requests: list[tuple[int, int]]) -> None:
    cache = ClipCache(100 / 2**20)
    stored: dict[int, int] = {}
    for key, size in requests:
        size = stored.setdefault(key, 2 * size)
        result = cache.get(key, clip(size, key))
        assert np.array_equal(result, np.full(size // 2, key))
        assert cache.bytes <= cache.max_bytes
    assert cache.hits + cache.misses == len(requests)


def test_a_clip_larger_than_the_bound_is_returned_and_not_kept() -> None:
    cache = ClipCache(KILO)
    cache.get("a", clip(512))
    assert len(cache.get("big", clip(4096))) == 2048
    assert (len(cache), cache.bytes) == (1, 512)
    empty = ClipCache(0)
    assert len(empty.get("a", clip(2))) == 1
    assert empty.bytes == 0


def test_clips_are_shared_and_therefore_read_only() -> None:
    cache = ClipCache(1)
    with pytest.raises(ValueError, match="read-only"):
        cache.get("a", clip(64))[0] = 1


def test_a_view_does_not_keep_its_base_alive() -> None:
    base = np.zeros(10000, np.int16)
    kept = ClipCache(1).get("a", lambda: base[:10])
    assert kept.base is None
    base[0] = 7  # the caller's array stays writable
    assert kept[0] == 0


def test_what_make_raises_comes_through_and_is_not_remembered() -> None:
    def broken() -> NDArray[np.int16]:
        raise AudioError("a.wav: empty")

    cache = ClipCache(1)
    for _ in range(2):
        with pytest.raises(AudioError):
            cache.get("a", broken)
    assert (cache.misses, cache.bytes) == (2, 0)


def test_a_cache_arrives_empty_in_a_worker() -> None:
    cache = ClipCache(1.5)
    cache.get("a", clip(64))
    copy = pickle.loads(pickle.dumps(cache))
    assert (copy.max_bytes, copy.bytes, copy.misses) == (cache.max_bytes, 0, 0)


@pytest.mark.parametrize("size", [-1, float("nan")])
def test_a_negative_size_is_refused(size: float) -> None:
    with pytest.raises(ConfigError, match="0 or more"):
        ClipCache(size)
