"""Paths and files that are not audio: each is refused with its reason."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from glottis.audio import decode, load, probe
from glottis.errors import AudioError
from helpers.audio_files import voice, write_sound


def test_every_wrong_path_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file.wav").write_bytes(b"RIFF")
    (tmp_path / "link.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "u\u0308.wav").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.wav")
    for name, reason in {
        "missing.wav": "no such file$",
        "no/such/folder.wav": "the folder .*such does not exist",
        "link.wav": "it is a link to .*gone.wav",
        "\u00fc.wav": "accents written in another way",
        "file.wav/x.wav": "cannot be opened .Not a directory",
        ".": "this is a folder",
        "pipe.wav": "not a regular file",
        "x" * 300: "File name too long",
        "a\0b.wav": "null",
    }.items():
        for read in (probe, decode, load):
            with pytest.raises(AudioError, match=reason) as caught:
                read(tmp_path / name)
            assert str(tmp_path) in caught.value.seen


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"the file is empty"),
        (b"<html>404 not found</html>\n", r"a text file, not audio; it begins with '<html>404"),
        ("grüße ".encode() * 2000, "a text file"),
        (bytes(5000), "zero bytes"),
        (bytes(range(256)) * 20, "neither libsndfile nor ffmpeg"),
        (np.repeat(np.arange(240, dtype=np.uint8), 40).tobytes(), "neither libsndfile nor ffmpeg"),
        (b"#EXTM3U\n#EXTINF:3,\nhttp://localhost:1/x.ts\n", "a text file"),
        (b"\0\0\0\x20ftypM4A " + bytes(range(100)), "without its index"),
    ],
)
@pytest.mark.parametrize("name", ["x.wav", "x.mp3", "x.gsm", "x.txt", "x.m3u8", "x"])
def test_what_is_not_audio_is_named(tmp_path: Path, content: bytes, reason: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioError, match=reason):
        decode(path)


def test_random_bytes_are_never_taken_for_sound(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "x"
    for trial in range(30):
        noise = rng.integers(0, 256, int(rng.integers(10, 20000)), dtype=np.uint8)
        path.write_bytes(np.repeat(noise, 20 if trial % 2 else 1).tobytes())
        with pytest.raises(AudioError, match="neither libsndfile nor ffmpeg"):
            decode(path)


def test_a_film_without_sound_is_named(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        image: NDArray[np.uint8] = np.zeros((32, 32, 3), np.uint8)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match=r"mp4 without audio \(video only\)"):
        decode(path)


def test_unreadable_files_are_an_audio_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sound(tmp_path / "x.wav", voice(0.2))
    path.chmod(0)
    if os.access(path, os.R_OK):  # the tests run as root: pretend

        def refuse(*_: object) -> bytes:
            raise PermissionError(13, "Permission denied")

        path.write_bytes(b"not audio \xff\xfe")
        monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(AudioError, match=r"cannot be read \(Permission denied"):
        decode(path)
