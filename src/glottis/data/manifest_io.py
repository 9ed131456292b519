"""Manifests on disk: CSV (or TSV) for people, Parquet for speed.

A CSV is read as text and typed afterwards, so that no value is guessed (speaker ``007`` stays
``007``); written files have one header line and quotes only where they are needed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from glottis.data._files import write_atomically
from glottis.data.manifest_check import TEXT
from glottis.errors import DataError

FORMAT_KEY = b"glottis.manifest"
FORMAT_VERSION = 1
DELIMITERS = {".csv": ",", ".tsv": "\t"}
_BAD_LINES_SHOWN = 5


def read_table(path: Path) -> pa.Table:
    """The raw columns of a manifest file: all text from CSV, typed from Parquet."""
    if not path.is_file():
        raise DataError(f"there is no manifest {path}", fix="check the path")
    if path.suffix == ".parquet":
        return _read_parquet(path)
    return read_delimited(path, _delimiter(path))


def write_table(table: pa.Table, path: Path) -> None:
    """Write atomically, in the format that the suffix names."""
    if path.suffix == ".parquet":
        buffer = io.BytesIO()
        marked = table.replace_schema_metadata({FORMAT_KEY: str(FORMAT_VERSION).encode()})
        pa_parquet.write_table(marked, buffer, compression="zstd")
        write_atomically(path, [buffer.getvalue()])
    else:
        write_atomically(path, _delimited_lines(table, _delimiter(path)))


def read_delimited(path: Path, delimiter: str, *, quoting: bool = True) -> pa.Table:
    """A text table with a header line as columns of text.

    quoting: with False a quote is an ordinary character (some corpora need that).
    A byte-order mark, either line ending and blank lines are accepted; a line with another number
    of cells than the header is an error that names it.
    """
    names, lines_used = _header(path, delimiter, quoting)
    bad: list[pa_csv.InvalidRow] = []

    def note(row: pa_csv.InvalidRow) -> str:
        bad.append(row)
        return "skip"

    try:
        table = pa_csv.read_csv(
            path,
            # one thread: as fast here, and rows keep their numbers
            read_options=pa_csv.ReadOptions(
                use_threads=False, column_names=names, skip_rows=lines_used, block_size=1 << 24
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if quoting else False,
                newlines_in_values=quoting,
                invalid_row_handler=note,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, TEXT), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error):
            return pa.table({name: pa.array([], TEXT) for name in names})
        raise DataError(
            f"{path} cannot be read as a table: {error}",
            fix="save it as UTF-8 text with one header line",
        ) from None
    if bad:
        shown = "; ".join(
            f"row {row.number - lines_used} has {row.actual_columns} ({row.text[:60]!r})"
            if row.number is not None
            else f"a row has {row.actual_columns} ({row.text[:60]!r})"
            for row in bad[:_BAD_LINES_SHOWN]
        )
        more = len(bad) - _BAD_LINES_SHOWN
        raise DataError(
            f"{path}: {len(bad)} rows do not have {len(names)} cells like the header: {shown}"
            + (f" and {more} more" if more > 0 else ""),
            fix="every row needs a cell for every column; quote cells that hold the delimiter",
        )
    return table


def _header(path: Path, delimiter: str, quoting: bool) -> tuple[list[str], int]:
    """Column names, and how many lines of the file they and the blank lines above them take."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                names = _cells_of(line, delimiter, quoting)
                names = [name.strip() for name in names]
                twice = sorted({name for name in names if names.count(name) > 1})
                if twice:
                    raise DataError(f"{path}: columns that stand twice: {', '.join(twice)}")
                return names, number
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text", fix="save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    raise DataError(f"{path} is empty", fix="a table starts with a line of column names")


def _cells_of(line: str, delimiter: str, quoting: bool) -> list[str]:
    if not quoting:
        return line.rstrip("\r\n").split(delimiter)
    return next(csv.reader([line], delimiter=delimiter))


def _read_parquet(path: Path) -> pa.Table:
    try:
        table = pa_parquet.ParquetFile(path).read()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from None
    version = (table.schema.metadata or {}).get(FORMAT_KEY)
    if version is not None and int(version) > FORMAT_VERSION:
        raise DataError(
            f"{path} was written by a newer Glottis (manifest format {int(version)}, this one "
            f"knows {FORMAT_VERSION})",
            fix="upgrade Glottis, or write the manifest as CSV there",
        )
    return table


def _delimiter(path: Path) -> str:
    if path.suffix not in DELIMITERS:
        raise DataError(
            f"'{path.name}' does not say what it is",
            fix=f"a manifest ends with {', '.join([*DELIMITERS, '.parquet'])}",
        )
    return DELIMITERS[path.suffix]


def _delimited_lines(table: pa.Table, delimiter: str) -> Iterator[bytes]:
    """The file in blocks of rows."""
    header = io.StringIO()
    csv.writer(header, delimiter=delimiter, lineterminator="\n").writerow(table.column_names)
    yield header.getvalue().encode()
    for batch in table.to_batches(max_chunksize=100_000):
        cells = [_quoted(column, delimiter) for column in batch.columns]
        rows = pc.binary_join_element_wise(*cells, pa.scalar(delimiter, TEXT))
        yield ("\n".join(rows.to_pylist()) + "\n").encode()


def _quoted(column: pa.Array, delimiter: str) -> pa.Array:
    text = column if column.type == TEXT else column.cast(TEXT).fill_null("")
    needs_quotes = pc.match_substring_regex(text, f'[{delimiter}"\n\r]')
    if not pc.any(needs_quotes).as_py():
        return text
    quote = pa.scalar('"', TEXT)
    doubled = pc.replace_substring(text, '"', '""')
    quoted = pc.binary_join_element_wise(quote, doubled, quote, pa.scalar("", TEXT))
    return pc.if_else(needs_quotes, quoted, text)
