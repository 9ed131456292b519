"""The code in docs/audio.md runs, and its list of warnings is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "audio.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "docs/audio.md", "exec"), names)
    assert len(names["store"]) == 1  # type: ignore[arg-type]


def test_every_warning_is_explained() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "src/glottis/audio").glob("*.py")
    )
    codes = set(re.findall(r'f"([a-z_]+): [^"]*\{', sources))
    section = DOCS.partition("## Warnings")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE))
    assert documented == codes
