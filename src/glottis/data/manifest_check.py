"""What a manifest must be: the columns, their types, and the rules every row keeps.

`validated` turns any Arrow table into the one form the rest of Glottis relies on, or raises one
`DataError` that lists every problem with its row numbers (row 1 is the first row of data).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from glottis.data.labels import BONAFIDE, SPOOF
from glottis.errors import DataError

TEXT = pa.large_string()
COLUMNS: dict[str, pa.DataType] = {
    "utterance": TEXT,
    "path": TEXT,
    "speaker": TEXT,
    "session": TEXT,
    "split": TEXT,
    "label": TEXT,
    "attack": TEXT,
    "duration_s": pa.float64(),
    "sample_rate": pa.int32(),
    "gender": TEXT,
    "language": TEXT,
    "channel": TEXT,
    "source": TEXT,
    "licence": TEXT,
    "start_s": pa.float64(),
    "end_s": pa.float64(),
    "person_group": TEXT,
}
"""The columns that Glottis knows, in the order they are written.

``start_s`` and ``end_s`` cut one row out of a longer file.  Speakers that share a ``person_group``
may be one person: they are never a non-target pair and never on two sides of a split.
"""
REQUIRED = ("utterance", "path")
ROWS_SHOWN = 5
PROBLEMS_SHOWN = 20

_NUMBER = re.compile(r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$")
_OUTSIDE = r"^/|^[A-Za-z]:|^~|(^|/)\.\.(/|$)"
_UNTIDY = r"(^|/)\.(/|$)|//"


@dataclass
class Problems:
    """Collects what is wrong with a table; every kind once, with its first rows."""

    lines: list[str] = field(default_factory=list)

    def rows(self, bad: pa.Array, text: str, column: pa.Array | None = None, fix: str = "") -> None:
        """``text`` for the rows where ``bad`` (N,) is true; ``column`` adds their values."""
        where = pc.indices_nonzero(bad)
        if len(where) == 0:
            return
        parts = []
        for index in where[:ROWS_SHOWN].to_pylist():
            value = "" if column is None else f" ({column[index].as_py()!r})"
            parts.append(f"{index + 1}{value}")
        more = f" and {len(where) - ROWS_SHOWN} more" if len(where) > ROWS_SHOWN else ""
        word = "row" if len(where) == 1 else "rows"
        self.lines.append(f"{text}: {word} {', '.join(parts)}{more}{f'; {fix}' if fix else ''}")

    def add(self, text: str) -> None:
        """A problem of the whole table."""
        self.lines.append(text)

    def raise_any(self, source: str) -> None:
        """One error for everything that was collected."""
        if not self.lines:
            return
        shown = "\n".join(f"  {line}" for line in self.lines[:PROBLEMS_SHOWN])
        more = len(self.lines) - PROBLEMS_SHOWN
        count = "1 problem" if len(self.lines) == 1 else f"{len(self.lines)} problems"
        raise DataError(
            f"{source}: {count}\n{shown}" + (f"\n  and {more} more" if more > 0 else ""),
            why="everything after this relies on these columns",
            fix="correct the table (row 1 is the first row of data, the header is not counted)",
        )


def validated(table: pa.Table, source: str) -> pa.Table:
    """The table in canonical form (column order, types, no nulls in text), or a `DataError`."""
    problems = Problems()
    duplicates = sorted({n for n in table.column_names if table.column_names.count(n) > 1})
    if duplicates:
        problems.add(f"columns that stand twice: {', '.join(duplicates)}")
        problems.raise_any(source)
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        problems.add(
            f"missing columns {', '.join(missing)}; "
            f"found: {', '.join(table.column_names) or 'none'}"
        )
    columns: dict[str, pa.Array] = {}
    known = [name for name in COLUMNS if name in table.column_names]
    extra = [name for name in table.column_names if name not in COLUMNS]
    for name in known + extra:
        array = _one_array(table[name])
        converted = (
            _typed(array, name, COLUMNS[name], problems)
            if name in COLUMNS
            else _extra(array, name, problems)
        )
        if converted is not None:
            columns[name] = converted
    if "path" in columns:
        columns["path"] = tidy_paths(columns["path"])
    if "attack" in columns:  # the corpora write "-" for "none"
        attack = columns["attack"]
        columns["attack"] = pc.if_else(pc.equal(attack, "-"), pa.scalar("", TEXT), attack)
    if not missing and table.num_rows == 0:
        problems.add("no rows")
    _check_rows(columns, problems)
    problems.raise_any(source)
    return pa.table(columns)


def tidy_paths(paths: pa.Array) -> pa.Array:
    """Forward slashes, no ``./`` and no ``//``: one file has one name."""
    if _holds(paths, b"\\"):
        paths = pc.replace_substring(paths, "\\", "/")
    if not _holds(paths, b"./", b"//", b"/."):
        return paths
    if pc.any(pc.match_substring_regex(paths, _UNTIDY)).as_py():
        absolute = pc.starts_with(paths, "/")
        paths = pc.replace_substring_regex(paths, "/+", "/")
        for _ in range(2):  # neighbours share a slash: "a/././b"
            paths = pc.replace_substring_regex(paths, r"(^|/)(\./)+", r"\1")
        paths = pc.replace_substring_regex(paths, r"([^/])/\.$", r"\1")
        lost = pc.and_(absolute, pc.invert(pc.starts_with(paths, "/")))
        assert not pc.any(lost).as_py()  # tidying must never hide an absolute path
    return paths


def _holds(values: pa.Array, *needles: bytes) -> bool:
    """Whether a needle occurs in the joined text: fast, true also across two rows."""
    data = values.buffers()[2]
    if data is None:
        return False
    text = bytes(data)
    return any(needle in text for needle in needles)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(TEXT)  # first: joined chunks of short strings can pass 2 GiB
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    return array


def _typed(array: pa.Array, name: str, kind: pa.DataType, problems: Problems) -> pa.Array | None:
    if pa.types.is_null(array.type):
        array = array.cast(kind)
    if kind == TEXT:
        return _text(array, name, problems)
    if pa.types.is_large_string(array.type):
        return _number_from_text(array, name, kind, problems)
    whole = pa.types.is_integer(kind)
    if not (pa.types.is_integer(array.type) or (pa.types.is_floating(array.type) and not whole)):
        problems.add(f"column {name} is {array.type}, it must be {_words(kind)}")
        return None
    return _cast(array, name, kind, problems)


def _text(array: pa.Array, name: str, problems: Problems) -> pa.Array | None:
    if pa.types.is_integer(array.type):  # "1272" is a fine speaker; 1272.0 would not be
        array = array.cast(TEXT)
    if not pa.types.is_large_string(array.type):
        problems.add(f"column {name} is {array.type}, it must be text")
        return None
    return array.fill_null("") if array.null_count else array


def _number_from_text(
    array: pa.Array, name: str, kind: pa.DataType, problems: Problems
) -> pa.Array | None:
    blank = pc.or_kleene(pc.is_null(array), pc.equal(array, ""))
    array = pc.if_else(blank, pa.scalar(None, TEXT), array)
    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        good = pc.match_substring_regex(
            array, _NUMBER.pattern if kind == pa.float64() else r"^\s*\d{1,9}\s*$"
        )
        bad = pc.invert(good).fill_null(False)
        before = len(problems.lines)
        problems.rows(bad, f"{name} is not {_words(kind)}", array)
        if len(problems.lines) == before:
            return _cast(pc.utf8_trim_whitespace(array), name, kind, problems)
        return None


def _cast(array: pa.Array, name: str, kind: pa.DataType, problems: Problems) -> pa.Array | None:
    try:
        return array.cast(kind)
    except pa.ArrowInvalid as error:
        problems.add(f"column {name}: {error}")
        return None


def _extra(array: pa.Array, name: str, problems: Problems) -> pa.Array | None:
    kind = array.type
    if not name.strip():
        problems.add("a column without a name")
        return None
    if pa.types.is_null(kind):
        return pa.array([""] * len(array), TEXT)
    if pa.types.is_large_string(kind):
        return array.fill_null("") if array.null_count else array
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return array
    problems.add(f"extra column {name} is {kind}; only text, numbers and true/false are kept")
    return None


def _check_rows(columns: dict[str, pa.Array], problems: Problems) -> None:
    """The rules of rows, on whichever columns could be read."""
    checks: list[tuple[tuple[str, ...], Callable[..., None]]] = [
        (("utterance",), _check_utterances),
        (("path",), _check_paths),
        (("utterance", "path"), _check_repeats),
        (("label",), _check_labels),
        (("duration_s",), _check_durations),
        (("sample_rate",), _check_rates),
        (("start_s", "end_s"), _check_segments),
    ]
    for names, check in checks:
        if all(name in columns for name in names):
            check(columns, problems)
    if "start_s" in columns and "end_s" not in columns:
        problems.add("column start_s needs column end_s beside it")


def _check_utterances(columns: dict[str, pa.Array], problems: Problems) -> None:
    utterance = columns["utterance"]
    problems.rows(pc.equal(utterance, ""), "empty utterance")
    _check_breaks(utterance, "utterance", problems)


def _check_paths(columns: dict[str, pa.Array], problems: Problems) -> None:
    path = columns["path"]
    problems.rows(pc.equal(path, ""), "empty path")
    if _holds(path, b":", b"~", b"..") or pc.any(pc.starts_with(path, "/")).as_py():
        problems.rows(
            pc.match_substring_regex(path, _OUTSIDE),
            "path leaves data.root",
            path,
            fix="write paths relative to data.root, without '..'",
        )
    _check_breaks(path, "path", problems)


def _check_repeats(columns: dict[str, pa.Array], problems: Problems) -> None:
    utterance, path = columns["utterance"], columns["path"]
    with ThreadPoolExecutor(2) as pool:  # the slowest two checks of a large table
        twice = pool.submit(repeats, utterance)
        again = None if "start_s" in columns else pool.submit(repeats, path)
    problems.rows(twice.result(), "utterance stands twice", utterance)
    if again is not None:
        fix = "one file is one row unless start_s cuts it"
        problems.rows(again.result(), "path stands twice", path, fix=fix)


def _check_breaks(values: pa.Array, name: str, problems: Problems) -> None:
    if _holds(values, b"\n", b"\r", b"\t"):
        broken = pc.match_substring_regex(values, "[\n\r\t]")
        problems.rows(broken, f"line break or tab in {name}", values)


def _check_labels(columns: dict[str, pa.Array], problems: Problems) -> None:
    label = columns["label"]
    known = pc.is_in(label, value_set=pa.array([BONAFIDE, SPOOF, ""], TEXT))
    problems.rows(
        pc.invert(known), "unknown label", label, fix=f"known: {BONAFIDE}, {SPOOF} or empty"
    )
    if "attack" in columns:
        attack = columns["attack"]
        both = pc.and_(pc.equal(label, BONAFIDE), pc.not_equal(attack, ""))
        problems.rows(both, "bona fide with an attack", attack)


def _check_durations(columns: dict[str, pa.Array], problems: Problems) -> None:
    seconds = columns["duration_s"]
    good = pc.and_(pc.is_finite(seconds), pc.greater(seconds, 0.0)).fill_null(True)
    problems.rows(pc.invert(good), "duration_s is not a positive number", seconds)


def _check_rates(columns: dict[str, pa.Array], problems: Problems) -> None:
    rate = columns["sample_rate"]
    problems.rows(pc.less_equal(rate, 0).fill_null(False), "sample_rate is not positive", rate)


def _check_segments(columns: dict[str, pa.Array], problems: Problems) -> None:
    start, end = columns["start_s"], columns["end_s"]
    half = pc.xor(pc.is_null(start), pc.is_null(end))
    problems.rows(half, "only one of start_s and end_s is given")
    good = pc.and_(
        pc.and_(pc.is_finite(start), pc.is_finite(end)),
        pc.and_(pc.greater_equal(start, 0.0), pc.greater(end, start)),
    )
    problems.rows(pc.invert(good).fill_null(False), "start_s and end_s are not a piece of a file")
    if "path" in columns:
        cells = [column.cast(TEXT).fill_null("") for column in (columns["path"], start, end)]
        key = pc.binary_join_element_wise(*cells, pa.scalar("\n", TEXT))
        problems.rows(repeats(key), "the same piece of a file stands twice", columns["path"])


def repeats(values: pa.Array) -> pa.Array:
    """(N,) true where a value stood in an earlier row already."""
    encoded = values.dictionary_encode()
    if len(encoded.dictionary) == len(values):
        return pa.repeat(pa.scalar(False), len(values))
    codes = encoded.indices
    first = pc.index_in(pa.array(range(len(encoded.dictionary)), codes.type), value_set=codes)
    rows = pa.array(range(len(values)), pa.int32())
    return pc.not_equal(first.cast(pa.int32()).take(codes), rows)


def _words(kind: pa.DataType) -> str:
    return "a whole number" if pa.types.is_integer(kind) else "a number"
