"""A few bytes of a file: what is promised, what is cut off, and what it is if it is not audio."""

from __future__ import annotations

import codecs
import os
import stat
import struct
import unicodedata
from pathlib import Path

from glottis.errors import AudioError

GSM_FRAME_BYTES = 33
_OGG_TAIL_BYTES = 1 << 17  # a page has at most 65,307 bytes


def require_file(path: Path) -> None:
    """Raise AudioError unless the path is a regular file with at least one byte."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file{_why_missing(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise AudioError(f"{path}: cannot be opened ({_reason(error)})") from None
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{path}: this is a folder, not an audio file")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{path}: not a regular file", why="pipes and devices cannot be rewound")
    if status.st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes)", fix="fetch or copy it again")


def _why_missing(path: Path) -> str:
    if path.is_symlink():
        return f" (it is a link to {os.readlink(path)}, which does not exist)"
    if not path.parent.exists():
        return f" (the folder {path.parent} does not exist)"
    wanted = unicodedata.normalize("NFC", path.name)
    try:
        for other in os.listdir(path.parent):
            if unicodedata.normalize("NFC", other) == wanted:
                return " (a file of that name exists, with its accents written in another way)"
    except OSError:
        pass  # an unreadable folder: there is no hint to give
    return ""


def _reason(error: OSError | ValueError) -> str:
    return str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error)


def read_head(path: Path, count: int = 4096) -> bytes:
    """The first bytes.  Raises AudioError if the file cannot be read."""
    try:
        with open(path, "rb") as handle:
            return handle.read(count)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({_reason(error)})") from None


def require_binary(path: Path) -> None:
    """Raise AudioError if the file begins with text or zeros, which ffmpeg may take for sound."""
    head = read_head(path)
    if not head.strip(b"\0"):
        raise AudioError(
            f"{path}: begins with {len(head)} zero bytes, not with audio",
            why="this is what a download or copy that broke off often leaves",
            fix="fetch it again",
        )
    text = _as_text(head)
    if text is not None:
        raise AudioError(f"{path}: this is a text file, not audio; it begins with {text[:40]!r}")


def not_audio(path: Path) -> AudioError:
    """The error for a file that no decoder knows."""
    if read_head(path)[4:8] == b"ftyp":
        return AudioError(
            f"{path}: an mp4 or m4a file without its index ('moov'): the end is missing",
            fix="fetch it again",
        )
    return AudioError(f"{path}: neither libsndfile nor ffmpeg recognises an audio format in it")


def _as_text(head: bytes) -> str | None:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last letter may be cut
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c in "\r\n\t\f\ufeff" for c in text) else None


def looks_like_gsm(path: Path) -> bool:
    """Raw GSM 06.10 has no header, but each frame of 33 bytes begins with the half byte 0xD."""
    head = read_head(path, GSM_FRAME_BYTES * 100)
    starts = head[::GSM_FRAME_BYTES]
    return len(head) >= GSM_FRAME_BYTES and all(byte >> 4 == 0xD for byte in starts)


def wav_missing_bytes(path: Path) -> int:
    """How many bytes of the data chunk of a RIFF/WAVE file lie beyond its end; 0 if unknown.

    Sizes of 0 and of 2 GiB or more are what a writer into a pipe leaves: no promise.
    """
    with open(path, "rb") as handle:
        if handle.read(4) != b"RIFF" or len(handle.read(8)) < 8:
            return 0
        end = os.fstat(handle.fileno()).st_size
        while len(header := handle.read(8)) == 8:
            size = struct.unpack("<I", header[4:])[0]
            if header[:4] == b"data":
                return max(0, handle.tell() + size - end) if size < 0x7FFFF000 else 0
            handle.seek(size + size % 2, os.SEEK_CUR)
    return 0


def ogg_end(path: Path) -> tuple[bool, int]:
    """(is the last page marked as the end, its granule position) of an Ogg file."""
    with open(path, "rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        handle.seek(max(0, size - _OGG_TAIL_BYTES))
        tail = handle.read()
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 14:
        return False, 0
    return bool(tail[at + 5] & 4), struct.unpack("<q", tail[at + 6 : at + 14])[0]
