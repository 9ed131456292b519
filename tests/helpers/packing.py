"""Miniature corpora for the packed store, and folders compared byte for byte."""

from __future__ import annotations

from pathlib import Path

from glottis.audio import PackItem
from helpers.audio_files import voice, write_sound


def make_items(folder: Path, count: int, broken: tuple[int, ...] = ()) -> list[PackItem]:
    """Clips of 0.1 to 0.5 s in three formats and two rates; the broken ones are empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for index in range(count):
        rate = 8000 if index % 5 == 4 else 16000
        path = folder / f"clip{index:03d}.{('wav', 'flac', 'ogg')[index % 3]}"
        if index in broken:
            path.touch()
        else:
            write_sound(path, voice(0.1 + 0.1 * (index % 5), rate, seed=index), rate)
        items.append(PackItem(f"speaker{index % 3}/clip{index}", path))
    return items


def content(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every file in a store."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
