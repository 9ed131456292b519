"""What verbs print: tables for people, JSON for machines, progress for terminals."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from glottis.errors import ConfigError

if TYPE_CHECKING:
    from glottis.score.results import Result

JSON_OPTION = typer.Option(False, "--json", help="Print JSON for machines.")


def print_json(value: Any) -> None:
    """One JSON document on stdout; numbers that JSON does not have become null."""
    typer.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False, default=str))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns, columns of numbers to the right; None is shown as ``-``."""
    cells = [["-" if value is None else str(value) for value in row] for row in rows]
    columns = [[header, *(row[i] for row in cells)] for i, header in enumerate(headers)]
    widths = [max(map(len, column)) for column in columns]
    numeric = [len(cells) > 0 and all(map(_is_number, column[1:])) for column in columns]
    for row in [list(headers), *cells]:
        parts = [
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(row, widths, numeric, strict=True)
        ]
        typer.echo("  ".join(parts).rstrip())


def _is_number(text: str) -> bool:
    if text in ("", "-"):
        return True
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def print_result(result: Result) -> None:
    """Counts, pooled numbers, tables by condition, how the intervals were made, notes."""
    from glottis.score.results import LABELS

    typer.echo(", ".join(f"{number:,} {name}" for name, number in result.n.items()))
    print_table(["metric", "value [95 %]"], result.rows())
    for condition in result.conditions():
        typer.echo("")
        print_table(*result.table(condition))
    typer.echo("")
    metrics_of: dict[str, list[str]] = {}
    for name, measured in result.metrics.items():
        metrics_of.setdefault(measured.method, []).append(LABELS.get(name, name))
    for method, names in metrics_of.items():
        typer.echo(f"{', '.join(names)}: {method}")
    for note in result.notes:
        typer.echo(f"note: {note}")


def require_folder(path: Path) -> None:
    """Refuse a destination that cannot become a folder, before anything is computed."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file; a folder is needed here", fix="name another folder")


def require_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; a file is needed here", fix=f"{path / 'NAME'}")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}", fix=f"mkdir -p {path.parent}")


def size_text(num_bytes: float) -> str:
    """``3.2 GB``; powers of 1000, as disks are sold."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def duration_text(seconds: float) -> str:
    """``38 s``, ``12.5 min`` or ``340.2 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Bar:
    """``done/total  rate  ETA`` on stderr; silent when it is not a terminal."""

    def __init__(self, label: str, unit: str = "clips") -> None:
        self.label, self.unit = label, unit
        self.live = sys.stderr.isatty()
        self._began = time.monotonic()
        self._shown = 0.0

    def __call__(self, done: int, total: int, rate: float | None = None) -> None:
        """rate: where some of ``done`` was done by an earlier run; default: since the start."""
        now = time.monotonic()
        if not self.live or (now - self._shown < 0.1 and done < total):
            return
        self._shown = now
        rate = done / max(1e-9, now - self._began) if rate is None else rate
        left = duration_text((total - done) / rate) if rate > 0 else "?"
        end = "\n" if done >= total else ""
        sys.stderr.write(
            f"\r{self.label} {done}/{total}  {rate:.1f} {self.unit}/s  eta {left}   {end}"
        )
        sys.stderr.flush()
