"""Small audio files made on the fly: speech-like sound in any container that the codecs allow."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray


def voice(seconds: float = 1.0, sample_rate: int = 16000, seed: int = 0) -> NDArray[np.float32]:
    """(S,) float32: a gliding harmonic tone in noise, with pauses; peak about 0.5."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    loudness = 0.55 + 0.45 * np.sin(2 * np.pi * 3 * time + rng.uniform(0, 6))
    wave = tone * loudness + 0.02 * rng.standard_normal(len(time))
    return (0.25 * wave).clip(-0.5, 0.5).astype(np.float32)


def write_sound(
    path: Path, samples: NDArray[np.float32], sample_rate: int = 16000, subtype: str | None = None
) -> Path:
    """Write (S,) or (S, C) with libsndfile; the suffix names the format."""
    kind = {".opus": "OGG", ".ogg": "OGG", ".mp3": "MP3"}.get(path.suffix)
    subtype = {".opus": "OPUS", ".ogg": "VORBIS"}.get(path.suffix, subtype)
    soundfile.write(path, samples, sample_rate, subtype=subtype, format=kind)
    return path


def write_media(
    path: Path, samples: NDArray[np.float32], sample_rate: int, codec: str, sample_format: str
) -> Path:
    """Write (S,) or (S, 2) with ffmpeg's libraries; the suffix names the container."""
    array = samples.reshape(len(samples), -1)
    layout = "mono" if array.shape[1] == 1 else "stereo"
    if sample_format.startswith("s16"):
        array = np.rint(array * 32768).clip(-32768, 32767).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=sample_rate)
        stream.layout = layout
        stream.format = sample_format
        size = stream.codec_context.frame_size or 1024
        for start in range(0, len(array), size):
            part = array[start : start + size]
            block = part.T if sample_format.endswith("p") else part.reshape(1, -1)
            block = np.ascontiguousarray(block)
            frame = av.AudioFrame.from_ndarray(block, format=sample_format, layout=layout)
            frame.sample_rate = sample_rate
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
