"""Generated miniatures of corpora: the layout of the real thing with a few tiny files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

Tree = dict[str, str | None]


def tiny_audio(suffix: str, seconds: float = 0.25, seed: int = 0) -> bytes:
    """A short noise at 16 kHz; formats that soundfile cannot write are a few bytes of anything."""
    if suffix not in (".wav", ".flac"):
        return b"not decoded here"
    noise = np.random.default_rng(seed).standard_normal(int(16000 * seconds)) * 0.1
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, 16000, format=suffix[1:].upper(), subtype="PCM_16")
    return buffer.getvalue()


@pytest.fixture
def plant(tmp_path: Path) -> Callable[..., Path]:
    """``plant({"wav/a.wav": None, "meta.csv": "text"})``: files under a fresh folder, which it
    returns; None is tiny audio, "" an empty file."""

    def make(tree: Tree, name: str = "corpus") -> Path:
        root = tmp_path / name
        root.mkdir(parents=True, exist_ok=True)
        for path, content in tree.items():
            place = root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(
                tiny_audio(place.suffix) if content is None else content.encode("utf-8")
            )
        return root

    return make
