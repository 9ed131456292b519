"""Lists of words: space or tab between cells, one row a line, no header, no quotes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from glottis.data._files import read_bytes, sha256_of_bytes
from glottis.data.manifest_check import TEXT
from glottis.errors import DataError

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Lines:
    """The columns of a list.

    columns: each (N,) Arrow text.  sha256: of the unedited file.  data: its text, for messages.
    """

    path: Path
    columns: tuple[pa.Array, ...]
    sha256: str
    data: bytes

    def __len__(self) -> int:
        return len(self.columns[0])

    def line_number(self, row: int) -> int:
        """The line of the file (from 1) that holds row ``row`` (from 0)."""
        return _filled_lines(self.data)[row][0]

    def refuse(self, bad: pa.Array, text: str, fix: str, rule: str = "P7") -> None:
        """A `DataError` with ``text`` and the first lines where ``bad`` (N,) is true, if any."""
        where = pc.indices_nonzero(bad).to_pylist()
        if not where:
            return
        lines = _filled_lines(self.data)
        shown = "; ".join(
            f"line {lines[row][0]}: '{lines[row][1].decode(errors='replace')}'"
            for row in where[:_SHOWN]
        )
        more = f" and {len(where) - _SHOWN} more" if len(where) > _SHOWN else ""
        raise DataError(f"{self.path}: {text}: {shown}{more}", fix=fix, rule=rule)


def read_lines(
    path: Path, what: str, counts: Collection[int], others: Mapping[int, str] | None = None
) -> Lines:
    """The list in a file; every line must have the same, allowed number of cells.

    what: the word for messages ("trial list").  counts: allowed numbers of cells.
    others: numbers of cells by which another kind of list is known -> what to do with it.
    A byte-order mark, either line ending, tabs, repeated spaces and blank lines are accepted.
    """
    raw = read_bytes(path, what)
    data = _plain(raw)
    first = data.lstrip(b"\n").split(b"\n", 1)[0]
    num_columns = len(first.split())
    if num_columns == 0:
        raise DataError(f"{path}: the {what} is empty", fix="check the path")
    if num_columns not in counts:
        raise _wrong_width(path, what, data, counts, (others or {}).get(num_columns, ""))
    bad: list[object] = []

    def note(row: object) -> str:
        bad.append(row)
        return "skip"

    names = [str(i) for i in range(num_columns)]
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            read_options=pa_csv.ReadOptions(column_names=names, block_size=1 << 24),
            parse_options=pa_csv.ParseOptions(
                delimiter=" ", quote_char=False, invalid_row_handler=note
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, TEXT), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a {what}: {error}", fix="save it as UTF-8 text") from None
    if bad:
        raise _wrong_width(path, what, data, {num_columns})
    columns = tuple(_joined(table[name]) for name in names)
    return Lines(path, columns, sha256_of_bytes(raw), data)


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks)


def _plain(data: bytes) -> bytes:
    """One space between cells, ``\\n`` between lines, nothing at the ends of a line."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\t" in data:
        data = data.replace(b"\t", b" ")
    if b"  " in data or b" \n" in data or b"\n " in data or data[:1] == b" " or data[-1:] == b" ":
        data = re.sub(rb" +", b" ", data)
        data = data.replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")
    return data


def _filled_lines(data: bytes) -> list[tuple[int, bytes]]:
    """(line number from 1, text) of the lines that are not blank."""
    return [(i, line) for i, line in enumerate(data.split(b"\n"), 1) if line]


def _wrong_width(
    path: Path, what: str, data: bytes, counts: Collection[int], fix: str = ""
) -> DataError:
    wrong = [(i, line) for i, line in _filled_lines(data) if line.count(b" ") + 1 not in counts]
    shown = "; ".join(
        f"line {i} has {line.count(b' ') + 1}: '{line[:80].decode(errors='replace')}'"
        for i, line in wrong[:_SHOWN]
    )
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    allowed = " or ".join(str(count) for count in sorted(counts))
    return DataError(
        f"{path}: {len(wrong)} lines of the {what} do not have {allowed} cells: {shown}{more}",
        fix=fix or "cells are separated by spaces, so they cannot contain any",
        rule="P7",
    )
