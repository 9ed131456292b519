"""``glottis demo``: from nothing to two evaluated models."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.cli import glottis, succeeds


@pytest.mark.slow
def test_the_quick_demo_goes_all_the_way_and_is_marked_synthetic(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    text = succeeds("demo", "--quick", "--out", out, "--workers", "0").out
    assert "SYNTHETIC" in text
    for task in ("speaker", "spoof"):
        assert any(
            line.startswith(f"{task}: ") and "synthetic" in line for line in text.splitlines()
        )
        for name in ("curves.png", "det.png", "result.json", "result.md"):
            assert (out / task / "report" / name).stat().st_size > 0
        for name in ("result.json", "result.md"):
            assert "SYNTHETIC" in (out / task / "report" / name).read_text()
    found = succeeds("demo", "--quick", "--out", out, "--json").json  # finds everything done
    assert found["synthetic"] is True
    assert found["results"]["speaker"]["result"]["task"] == "speaker"
    other = glottis("demo", "--quick", "--out", out, "--seed", "1")
    assert other.code == 2
    assert "choose another folder" in other.err


def test_the_demo_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    outcome = glottis("demo", "--quick", "--out", tmp_path / "file")
    assert (outcome.code, outcome.out) == (2, "")
    assert (tmp_path / "file").read_text() == "mine"
