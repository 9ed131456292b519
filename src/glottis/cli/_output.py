"""What verbs print: tables for people, JSON for machines, progress for terminals."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import typer

JSON_OPTION = typer.Option(False, "--json", help="Print JSON for machines.")


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns; numbers to the right."""
    cells = [[_text(value) for value in row] for row in rows]
    widths = [
        max([len(header), *(len(row[i]) for row in cells)]) for i, header in enumerate(headers)
    ]
    numeric = [
        bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(headers))
    ]
    for row in [list(headers), *cells]:
        parts = [
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(row, widths, numeric, strict=True)
        ]
        typer.echo("  ".join(parts).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace(",", "").replace("-", "", 1).isdigit() or text == ""


class Bar:
    """``done/total  rate  ETA`` on stderr; silent when it is not a terminal."""

    def __init__(self, label: str, unit: str = "clips") -> None:
        self.label, self.unit = label, unit
        self.live = sys.stderr.isatty()
        self._began = time.monotonic()
        self._shown = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self.live or (now - self._shown < 0.1 and done < total):
            return
        self._shown = now
        rate = done / max(1e-9, now - self._began)
        left = (total - done) / rate if rate > 0 else 0
        end = "\n" if done >= total else ""
        sys.stderr.write(
            f"\r{self.label} {done}/{total}  {rate:.0f} {self.unit}/s  eta {left:.0f} s   {end}"
        )
        sys.stderr.flush()
