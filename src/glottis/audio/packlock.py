"""One packing run per folder: a lock that the system releases when its process ends, however."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from glottis.audio.storefiles import LOCK
from glottis.errors import DataError

if sys.platform == "win32":
    import msvcrt

    def _acquire(handle: BinaryIO) -> None:
        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _acquire(handle: BinaryIO) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def only_packer(folder: Path) -> Iterator[None]:
    """Raise DataError if another process is packing into the folder."""
    path = folder / LOCK
    with open(path, "wb") as handle:
        try:
            _acquire(handle)
        except OSError:
            raise DataError(
                f"{folder}: another process is packing into this folder",
                fix="wait for it, or end it",
            ) from None
        yield
    path.unlink(missing_ok=True)
