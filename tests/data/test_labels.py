"""Label words of corpora."""

from __future__ import annotations

import numpy as np
import pytest

from glottis.data import canonical_label, canonical_labels, class_index, class_indices
from glottis.data.labels import ALIASES
from glottis.errors import DataError


@pytest.mark.parametrize("word", ["bonafide", "bona-fide", "genuine", "real", "Real", "human"])
def test_words_for_bona_fide(word):
    assert canonical_label(word) == "bonafide"


@pytest.mark.parametrize("word", ["spoof", "fake", "Fake", "deepfake", " SPOOF "])
def test_words_for_spoof(word):
    assert canonical_label(word) == "spoof"


def test_a_column_is_mapped_as_a_whole():
    words = ["real", "fake", "bona-fide"] * 1000
    assert canonical_labels(words).to_pylist() == ["bonafide", "spoof", "bonafide"] * 1000
    assert canonical_labels([]).to_pylist() == []


def test_unknown_words_are_reported_together_with_the_known():
    with pytest.raises(DataError, match="'maybe', 'unsure'") as caught:
        canonical_labels(["real", "unsure", "maybe", ""], source="meta.csv")
    assert "meta.csv" in caught.value.seen
    assert all(word in caught.value.fix for word in ALIASES)


def test_numbers_are_refused_until_the_polarity_is_stated():
    with pytest.raises(DataError, match="numbers 0, 1") as caught:
        canonical_labels(["1", "0"])
    assert "one_is_bonafide" in caught.value.fix
    assert canonical_labels(["1", "0"], polarity="one_is_bonafide").to_pylist() == [
        "bonafide",
        "spoof",
    ]
    assert canonical_labels(["1", "0"], polarity="one_is_spoof").to_pylist() == [
        "spoof",
        "bonafide",
    ]
    with pytest.raises(DataError, match="'2'"):
        canonical_labels(["1", "2"], polarity="one_is_spoof")


def test_class_indices_follow_the_logits():
    assert class_index("bonafide") == 1
    labels = np.array(["bonafide", "spoof"], dtype=object)
    assert class_indices(labels).tolist() == [1, 0]
    with pytest.raises(DataError, match="the first is row 2"):
        class_indices(np.array(["spoof", "", ""], dtype=object))
