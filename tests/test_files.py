"""Files are replaced as a whole or not at all, and what cannot be written is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glottis.data import Manifest
from glottis.errors import ToolkitError
from glottis.files import atomic_path, link, write_json, write_text


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")

    def half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("ne", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for path, reason in (
        (tmp_path / "file" / "x.csv", "Not a directory|File exists"),
        (tmp_path / "folder", "Is a directory"),
        (tmp_path / ("n" * 250 + ".csv"), "name too long"),
    ):
        with pytest.raises(ToolkitError, match=f"cannot write .*({reason})"):
            write_text(path, "new")
    manifest = Manifest.from_columns({"utterance": ["a"], "path": ["a.wav"]})
    with pytest.raises(ToolkitError, match=r"cannot write .*file/m\.csv"):
        manifest.write(tmp_path / "file" / "m.csv")
    manifest.write(tmp_path / "new" / "folder" / "m.csv")
    assert len(Manifest.read(tmp_path / "new" / "folder" / "m.csv")) == 1


def test_a_link_is_replaced_in_one_go(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        link(tmp_path / "latest", name)
        assert os.readlink(tmp_path / "latest") == name
    assert sorted(os.listdir(tmp_path)) == ["latest", "one", "two"]
