"""The examples of docs/augment.md are valid recipes and working code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from glottis.augment import AUGMENTATIONS
from glottis.configfile import read_mapping

PAGE = Path(__file__).parents[2] / "docs" / "augment.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_recipes_on_the_page_are_valid(text: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    entries = read_mapping(file)["augment"]
    assert len(entries) >= 3
    for entry in entries:
        AUGMENTATIONS.config(**entry)


def test_the_page_names_every_augmentation() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in AUGMENTATIONS.names() if f"| `{name}` |" not in page] == []


def test_code_on_the_page_runs() -> None:
    code = blocks("python")[0]  # the other one shows how to add an augmentation
    names: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert len(names["params"]) == 2  # type: ignore[arg-type]
