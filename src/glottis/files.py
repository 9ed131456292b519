"""Writing files so that a reader never sees half of one, and a crash never leaves half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from glottis.errors import ToolkitError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; fsynced and renamed over it when the block ends well.

    Errors of the file system come through as they are; most callers want `atomic_path`.
    """
    temporary = path.with_name(f"{temporary_prefix(path)}{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        with suppress(OSError):  # a folder that is no folder: the first error says so
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """`replacing`, with a `ToolkitError` that names the file if it cannot be written."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise ToolkitError(
            f"cannot write {path}: {error.strerror or error}",
            fix="check the folder's permissions and the free disk space",
        ) from error


def temporary_prefix(path: Path) -> str:
    """What the names of temporary files of ``path`` begin with; a kill may leave one."""
    return f".{path.name}."


def write_text(path: Path, text: str) -> None:
    """Replace the file's content as a whole."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace the file by this value as indented JSON (no NaN: it would not be JSON)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Ask the system to put a file or a folder on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders; its renames are journalled
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link(path: Path, target: str) -> None:
    """Make ``path`` a symbolic link to ``target`` (relative), replacing an old one in one go."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, path)
