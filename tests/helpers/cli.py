"""The command line, called in this process: ``glottis("train", recipe, "--json")``."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from glottis.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What a call left behind.  code: exit code; out, err: the two streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout, which must be one JSON document (NaN and Infinity are none)."""
        return json.loads(self.out, parse_constant=_refuse)


def glottis(*words: object) -> Outcome:
    """Run a verb; an exception that the command line lets out fails the test."""
    out, err = io.StringIO(), io.StringIO()
    logger = logging.getLogger("glottis")
    level = logger.level
    code: object = None
    try:
        with (
            mock.patch.object(sys, "argv", ["glottis", *map(str, words)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as stop:
        code = stop.code
    finally:
        logger.setLevel(level)
    assert isinstance(code, int), "the command line ends with an exit code"
    return Outcome(code, out.getvalue(), err.getvalue())


def succeeds(*words: object) -> Outcome:
    """Run a verb that must work."""
    outcome = glottis(*words)
    assert outcome.code == 0, outcome.err
    return outcome


def files_below(folder: Path) -> dict[str, int]:
    """Every file below a folder with its time of change: what a refused call must not touch."""
    return {str(p): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def _refuse(text: str) -> None:
    raise AssertionError(f"{text} is not JSON")
