"""Small things about files: whole or nothing on disk, hashes, and which ones are there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from glottis.errors import DataError
from glottis.files import atomic_path


def write_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """The whole content or nothing; folders above it are made.  Raises ToolkitError."""
    with atomic_path(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.writelines(chunks)


def read_bytes(path: Path, what: str) -> bytes:
    """The bytes of a file; a `DataError` that says ``what`` it should have been."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read the {what} {path}: {error.strerror or error}", fix="check the path"
        ) from None


def sha256_of_bytes(data: bytes) -> str:
    """64 hex digits over bytes exactly as they are on disk."""
    return hashlib.sha256(data).hexdigest()


def file_sizes(root: Path, paths: Sequence[str]) -> np.ndarray:
    """Bytes of each file under ``root``, -1 where there is none: (N,) int64."""
    sizes = np.empty(len(paths), np.int64)
    base = os.path.join(root, "")
    for index, path in enumerate(paths):
        try:
            sizes[index] = os.stat(base + path).st_size
        except (FileNotFoundError, NotADirectoryError):
            sizes[index] = -1
    return sizes


def some(names: Sequence[str], limit: int = 10) -> str:
    """``a, b, c`` and how many more."""
    shown = ", ".join(str(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
