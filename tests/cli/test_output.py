"""Tables, JSON and progress as terminals and machines get them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from glottis.cli._output import (
    Bar,
    duration_text,
    print_json,
    print_table,
    require_folder,
    require_writable,
    size_text,
)
from glottis.errors import ConfigError


def test_numbers_are_aligned_to_the_right_and_words_to_the_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [("a", "1,024", "-1e-05", "x1"), ("long", "7", "0.5000", "y"), ("b", None, "nan", None)]
    print_table(["name", "clips", "value", "note"], rows)
    assert capsys.readouterr().out.splitlines() == [
        "name  clips   value  note",
        "a     1,024  -1e-05  x1",
        "long      7  0.5000  y",
        "b         -     nan  -",
    ]


def test_a_table_without_rows_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "clips"], [])
    assert capsys.readouterr().out == "name  clips\n"


def test_json_has_no_numbers_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"loss": float("nan"), "list": (float("inf"), 1.5), "path": Path("a/ü"), "none": None}
    print_json(value)
    text = capsys.readouterr().out
    assert json.loads(text) == {"loss": None, "list": [None, 1.5], "path": "a/ü", "none": None}
    assert "ü" in text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_228_800, "1.2 MB"),
        (78e9, "78.0 GB"),
        (5e15, "5000.0 TB"),
    ],
)
def test_sizes_have_units(num_bytes: float, text: str) -> None:
    assert size_text(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(38.4, "38 s"), (150, "2.5 min"), (7200, "2.0 h"), (1.2e6, "333.3 h")]
)
def test_durations_have_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_rate_and_eta_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    times = iter([0.0, 10.0, 10.01, 20.0])
    monkeypatch.setattr("glottis.cli._output.time.monotonic", lambda: next(times))
    bar = Bar("packing")
    for done in (50, 51, 100):  # the second comes too soon to be shown
        bar(done, 100)
    lines = sys.stderr.getvalue().split("\r")[1:]  # type: ignore[attr-defined]
    assert [line.rstrip(" ") for line in lines] == [
        "packing 50/100  5.0 clips/s  eta 10 s",
        "packing 100/100  5.0 clips/s  eta 0 s   \n",
    ]


def test_progress_is_silent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    Bar("packing")(1, 1)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_destinations_are_checked_before_the_work(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    require_folder(tmp_path)
    require_folder(tmp_path / "new")
    require_writable(file)
    require_writable(tmp_path / "new.txt")
    with pytest.raises(ConfigError, match="is a file; a folder is needed"):
        require_folder(file)
    with pytest.raises(ConfigError, match="is a folder; a file is needed"):
        require_writable(tmp_path)
    with pytest.raises(ConfigError, match="there is no folder"):
        require_writable(tmp_path / "no" / "new.txt")
