from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glottis.data import EvaluationTrials
from glottis.errors import ConfigError, DataError, ResultError
from glottis.score.cosine import cosine_scores, score_pairs, score_trials
from glottis.score.embeddings import Embeddings, unit_length


def some_embeddings(count: int = 6, size: int = 8, seed: int = 0) -> Embeddings:
    matrix = np.random.default_rng(seed).normal(0, 3, (count, size)).astype(np.float32)
    return Embeddings([f"u{i}" for i in range(count)], matrix, {"model": "fake"})


def slow_cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(sum(x * y for x, y in zip(a, b, strict=True)) / np.sqrt((a @ a) * (b @ b)))


def test_scores_equal_the_cosine_by_hand() -> None:
    embeddings = some_embeddings()
    enrol, test = ["u0", "u3", "u5", "u2"], ["u1", "u3", "u0", "u4"]
    scores = score_pairs(embeddings, enrol, test)
    by_hand = [
        slow_cosine(embeddings.matrix[int(a[1:])], embeddings.matrix[int(b[1:])])
        for a, b in zip(enrol, test, strict=True)
    ]
    assert scores.dtype == np.float32
    assert scores == pytest.approx(by_hand, abs=1e-6)
    assert scores[1] == pytest.approx(1.0, abs=1e-6)


def test_shuffled_storage_gives_the_same_scores() -> None:
    embeddings = some_embeddings(40, 192)
    rng = np.random.default_rng(1)
    order = rng.permutation(40)
    shuffled = Embeddings([f"u{i}" for i in order], embeddings.matrix[order])
    pairs = [[f"u{i}" for i in rng.integers(0, 40, 500)] for _ in range(2)]
    assert np.array_equal(score_pairs(embeddings, *pairs), score_pairs(shuffled, *pairs))


def test_many_trials_equal_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks of the scoring leave no seam."""
    unit = unit_length(some_embeddings(30, 16).matrix, [f"u{i}" for i in range(30)])
    rng = np.random.default_rng(0)
    enrol, test = rng.integers(0, 30, 1000), rng.integers(0, 30, 1000)
    whole = cosine_scores(unit, enrol, test)
    monkeypatch.setattr("glottis.score.cosine._CHUNK", 7)
    assert np.array_equal(whole, cosine_scores(unit, enrol, test))


def test_a_trial_list_is_scored_by_name() -> None:
    embeddings = some_embeddings()
    trials = EvaluationTrials.from_pairs(["u4", "u0"], ["u0", "u5"], [True, False])
    expected = score_pairs(embeddings, ["u4", "u0"], ["u0", "u5"])
    assert np.array_equal(score_trials(embeddings, trials), expected)


def test_the_mean_is_subtracted_before_the_length_is_normalised() -> None:
    embeddings = some_embeddings()
    mean = np.full(8, 0.5, np.float32)
    moved = Embeddings(embeddings.utterances, embeddings.matrix - mean)
    pair = ["u0"], ["u1"]
    assert score_pairs(embeddings, *pair, mean=mean) == score_pairs(moved, *pair)
    assert score_pairs(embeddings, *pair, mean=mean) != score_pairs(embeddings, *pair)


def test_missing_utterances_are_named() -> None:
    with pytest.raises(ResultError, match=r"\[E1\] 2 utterances have no embedding: v1, v2"):
        score_pairs(some_embeddings(), ["u0", "v1", "v2"], ["u0", "v1", "u1"])


def test_a_mean_of_another_size_is_refused() -> None:
    with pytest.raises(ResultError, match=r"shape \(4,\)"):
        score_pairs(some_embeddings(), ["u0"], ["u1"], mean=np.zeros(4, np.float32))


def test_prefix_is_sliced_and_normalised() -> None:
    embeddings = some_embeddings()
    short = embeddings.cut(3)
    assert short.matrix.shape == (6, 3)
    assert np.linalg.norm(short.matrix, axis=1) == pytest.approx(np.ones(6), abs=1e-6)
    assert slow_cosine(short.matrix[0], embeddings.matrix[0][:3]) == pytest.approx(1.0, abs=1e-6)
    assert short.dims == (3,)
    with pytest.raises(ResultError, match="dimension 9"):
        embeddings.cut(9)


def test_only_sizes_that_were_trained_have_embeddings() -> None:
    whole = some_embeddings()
    with pytest.raises(ConfigError, match="dim=3 was not trained"):
        whole.dim(3)
    trained = Embeddings(whole.utterances, whole.matrix, {"dims": [2, 4, whole.matrix.shape[1]]})
    assert np.array_equal(trained.dim(4).matrix, whole.cut(4).matrix)
    assert trained.dim(4).dims == (2, 4)


def test_take_follows_the_order_that_was_asked_for() -> None:
    embeddings = some_embeddings()
    assert np.array_equal(embeddings.take(["u5", "u1"]).matrix, embeddings.matrix[[5, 1]])


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    embeddings = some_embeddings()
    embeddings.save(tmp_path / "e.parquet")
    again = Embeddings.load(tmp_path / "e.parquet")
    assert list(again.utterances) == list(embeddings.utterances)
    assert np.array_equal(again.matrix, embeddings.matrix)
    assert again.about == {"model": "fake"}
    assert [path.name for path in tmp_path.iterdir()] == ["e.parquet"]


def test_a_newer_file_and_a_strange_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    some_embeddings().save(path)
    table = pq.read_table(path)
    notes = b'{"format": 99, "glottis": "9.9.9", "about": {}}'
    pq.write_table(table.replace_schema_metadata({b"glottis.embeddings": notes}), path)
    with pytest.raises(DataError, match=r"written by Glottis 9\.9\.9 in format 99"):
        Embeddings.load(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DataError, match="holds no embeddings"):
        Embeddings.load(path)
    with pytest.raises(DataError, match="cannot read embeddings"):
        Embeddings.load(tmp_path / "none.parquet")


def rewritten(path: Path, names: pa.Array, values: pa.Array, **about: object) -> Path:
    """A file as another program could have written it."""
    notes = json.dumps({"format": 1, "glottis": "1", "about": about}).encode()
    table = pa.table({"utterance": names, "embedding": values})
    pq.write_table(table.replace_schema_metadata({b"glottis.embeddings": notes}), path)
    return path


def test_a_file_that_does_not_hold_together_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    names = pa.array(["a", "b"])
    rows = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(8, np.float32)), 4)
    nan = pa.FixedSizeListArray.from_arrays(pa.array(np.full(8, np.nan, np.float32)), 4)
    ragged = pa.array([[1.0], [1.0, 2.0]])
    cases: list[tuple[pa.Array, pa.Array, dict[str, object], str]] = [
        (names, ragged, {}, "no rows of one length"),
        (pa.array([1, 2]), rows, {}, "not all named"),
        (pa.array(["a", None]), rows, {}, "not all named"),
        (pa.array(["a", "a"]), rows, {}, "utterances occur twice"),
        (names, nan, {}, "are not finite"),
        (names, rows, {"dims": [2, 8]}, r"sizes \[2, 8\] of embeddings with 4"),
        (names, rows, {"dims": [2, 3]}, r"sizes \[2, 3\] of embeddings with 4"),
    ]
    for given, values, about, says in cases:
        with pytest.raises(DataError, match=rf"e\.parquet: [\s\S]*{says}"):
            Embeddings.load(rewritten(path, given, values, **about))
    table = pq.read_table(path)
    for notes in (b"no JSON", b"{}"):
        pq.write_table(table.replace_schema_metadata({b"glottis.embeddings": notes}), path)
        with pytest.raises(DataError, match="what it says about itself"):
            Embeddings.load(path)


def test_an_utterance_may_occur_once() -> None:
    with pytest.raises(ResultError, match=r"\[E3\] 1 utterances occur twice: a"):
        Embeddings(["a", "b", "a"], np.ones((3, 2), np.float32))


def test_count_type_and_finiteness_are_checked() -> None:
    with pytest.raises(ResultError, match="1 utterances but 2 embeddings"):
        Embeddings(["a"], np.ones((2, 2), np.float32))
    with pytest.raises(ResultError, match="float64"):
        Embeddings(["a"], np.ones((1, 2)))
    with pytest.raises(ResultError, match="not finite: b"):
        Embeddings(["a", "b"], np.array([[1, 1], [1, np.nan]], np.float32))


def test_a_zero_embedding_has_no_angle() -> None:
    embeddings = Embeddings(["a", "b"], np.array([[1, 1], [0, 0]], np.float32))
    with pytest.raises(ResultError, match="1 embeddings are all zeros: b"):
        score_pairs(embeddings, ["a"], ["b"])
