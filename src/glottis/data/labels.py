"""The two labels of spoofing work, and the words that corpora use for them.

The canonical words are ``bonafide`` and ``spoof``.  Other words are looked up in one table; a word
that is not in it is an error, never a guess.  The numbers 0 and 1 are used in both polarities by
published corpora and tools, so they are refused unless the reader states which one is meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glottis.data._files import some
from glottis.errors import DataError

BONAFIDE = "bonafide"
SPOOF = "spoof"
CLASSES = (SPOOF, BONAFIDE)  # the index in a model's logits: logits[:, 1] is bona fide
ALIASES = {
    "bonafide": BONAFIDE,
    "bona-fide": BONAFIDE,
    "bona_fide": BONAFIDE,
    "bona fide": BONAFIDE,
    "genuine": BONAFIDE,
    "real": BONAFIDE,
    "human": BONAFIDE,
    "spoof": SPOOF,
    "fake": SPOOF,
    "deepfake": SPOOF,
}
"""Lower-case word -> canonical label."""

Polarity = Literal["one_is_bonafide", "one_is_spoof"]
"""What the number 1 means."""

_NUMBERS: dict[Polarity, dict[str, str]] = {
    "one_is_bonafide": {"1": BONAFIDE, "0": SPOOF},
    "one_is_spoof": {"1": SPOOF, "0": BONAFIDE},
}


def canonical_label(word: str, *, polarity: Polarity | None = None, source: str = "label") -> str:
    """``bonafide`` or ``spoof`` for one word of a corpus."""
    return _mapping([word], polarity, source)[word]


def canonical_labels(
    words: pa.Array | pa.ChunkedArray | Iterable[str],
    *,
    polarity: Polarity | None = None,
    source: str = "labels",
) -> pa.Array:
    """`canonical_label` for a whole column (N,); all unknown words are reported at once."""
    column = _text_array(words)
    encoded = column.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    table = _mapping(distinct, polarity, source)
    values = pa.array([table[word] for word in distinct], pa.large_string())
    if len(values) == 0:
        return pa.array([], pa.large_string())
    return values.take(encoded.indices)


def class_index(label: str) -> int:
    """The position of a canonical label in a model's logits."""
    return CLASSES.index(label)


def class_indices(labels: np.ndarray, source: str = "labels") -> np.ndarray:
    """(N,) canonical labels -> (N,) int64 class indices; an empty label is an error."""
    bonafide, spoof = labels == BONAFIDE, labels == SPOOF
    bad = ~(bonafide | spoof)
    if bad.any():
        raise DataError(
            f"{source}: {int(bad.sum())} of {len(labels)} rows have no label, the first is row "
            f"{int(np.flatnonzero(bad)[0]) + 1}",
            why="a countermeasure cannot be trained or measured on unlabelled clips",
            fix="select the rows with label bonafide or spoof",
        )
    return np.asarray(bonafide, np.int64)


def _text_array(words: pa.Array | pa.ChunkedArray | Iterable[str]) -> pa.Array:
    if isinstance(words, pa.ChunkedArray):
        words = words.combine_chunks()
    if isinstance(words, pa.Array):
        return pc.cast(words, pa.large_string())
    return pa.array(list(words), pa.large_string())


def _mapping(words: Iterable[str], polarity: Polarity | None, source: str) -> dict[str, str]:
    known = ALIASES if polarity is None else ALIASES | _NUMBERS[polarity]
    table, unknown = {}, []
    for word in words:
        label = known.get(word.strip().lower())
        if label is None:
            unknown.append(word)
        else:
            table[word] = label
    numbers = [word for word in unknown if word.strip() in ("0", "1")]
    if numbers:
        raise DataError(
            f"{source}: labels are the numbers {some(sorted(numbers))}",
            why="corpora use both polarities; a wrong guess inverts every score",
            fix="state the polarity: one_is_bonafide or one_is_spoof",
            rule="P16",
        )
    if unknown:
        raise DataError(
            f"{source}: unknown labels {some(sorted(repr(word) for word in unknown))}",
            why="a label is looked up in a table, never guessed",
            fix=f"known: {', '.join(known)}",
            rule="P16",
        )
    return table
