"""What a user gets who installs the package instead of cloning it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE")


@pytest.mark.slow
def test_the_wheel_holds_types_and_recipes_and_no_tests(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(
        ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    for name in SOURCES:  # a copy: building writes beside the sources
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*build, "--no-index", "--quiet", "--wheel-dir", tmp_path, source],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("glottis-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "glottis/py.typed" in names
    assert {f"glottis/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")} <= names
    modules = {
        f"glottis/{path.relative_to(ROOT / 'src/glottis').as_posix()}"
        for path in (ROOT / "src/glottis").rglob("*.py")
    }
    assert modules <= names
    assert not any("tests" in name for name in names)
    # the recipes are found there too, without the sources
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    done = subprocess.run(
        [sys.executable, "-m", "glottis", "recipes"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(unpacked), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "unpacked/glottis/recipes/own_speaker.yaml" in done.stdout
