"""Search: exact is exact, two stages find what their shortlist holds, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from glottis.errors import ConfigError, ResultError
from glottis.rng import generator
from glottis.score import Embeddings
from glottis.score import search as module
from glottis.score.search import Gallery

DIMS = [8, 16, 32]


def voices(count: int, dims: list[int] | None = None) -> Embeddings:
    matrix = generator(1, "voices").standard_normal((count, 32)).astype(np.float32)
    return Embeddings([f"v{i}" for i in range(count)], matrix, {"dims": dims or DIMS})


def unit(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def test_exact_search_is_a_sort_of_all_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = voices(300)
    queries = generator(2, "queries").standard_normal((7, 32)).astype(np.float32)
    cosines = unit(queries) @ unit(gallery.matrix).T
    expected = np.argsort(-cosines, axis=1)[:, :4]
    rows, scores = Gallery(gallery).search(queries, top=4)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(cosines, expected, 1), atol=1e-6)
    monkeypatch.setattr(module, "_BLOCK", 600)  # two queries at once
    np.testing.assert_array_equal(Gallery(gallery).search(queries, top=4)[0], expected)


def test_two_stages_rerank_the_shortlist_of_the_prefix() -> None:
    gallery = voices(300)
    queries = generator(2, "queries").standard_normal((7, 32)).astype(np.float32)
    rows, scores = Gallery(gallery).search(queries, top=3, shortlist=20)
    first = unit(queries[:, :8]) @ unit(gallery.matrix[:, :8]).T
    whole = unit(queries) @ unit(gallery.matrix).T
    for query in range(7):
        candidates = np.argsort(-first[query])[:20]
        best = candidates[np.argsort(-whole[query, candidates])][:3]
        np.testing.assert_array_equal(rows[query], best)
        np.testing.assert_allclose(scores[query], whole[query, best], atol=1e-6)
    everything = Gallery(gallery).search(queries, top=3, shortlist=300)
    np.testing.assert_array_equal(everything[0], Gallery(gallery).search(queries, top=3)[0])


def test_fewer_voices_than_matches_and_no_queries() -> None:
    gallery = Gallery(voices(3))
    assert gallery.search(np.ones((2, 32), np.float32), top=9)[0].shape == (2, 3)
    assert gallery.search(np.empty((0, 32), np.float32), top=2)[0].shape == (0, 2)


def test_only_a_shortlist_needs_the_first_values() -> None:
    flat = voices(9)
    flat.matrix[4, :8] = 0
    gallery, queries = Gallery(flat), np.ones((1, 32), np.float32)
    assert gallery.search(queries, top=2)[0].shape == (1, 2)
    with pytest.raises(ResultError, match="all zeros: v4"):
        gallery.search(queries, top=2, shortlist=5)


def test_what_cannot_be_searched_is_refused() -> None:
    queries = np.ones((1, 32), np.float32)
    with pytest.raises(ConfigError, match="have one size, 32"):
        Gallery(voices(300, [32])).search(queries, shortlist=10)
    with pytest.raises(ConfigError, match="shortlist of 3 for 5"):
        Gallery(voices(300)).search(queries, top=5, shortlist=3)
    with pytest.raises(ResultError, match=r"shape \(1, 16\) for voice prints of 32"):
        Gallery(voices(300)).search(queries[:, :16])
    with pytest.raises(ResultError, match="no voice prints"):
        Gallery(Embeddings([], np.empty((0, 32), np.float32)))
