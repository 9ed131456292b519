"""m4a, aac, mp4, mov, webm, mka and whatever else ffmpeg's libraries decode, in process (PyAV).

Seeks in these formats are not sample-accurate (an m4a crop was off by 8e-3, an mp3 crop came back
721 samples long), so reading always begins at the start of the file and stops after the crop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import numpy as np

from glottis.audio.headers import gsm_has_partial_frame
from glottis.audio.types import Frames
from glottis.errors import AudioError

_END_SURPLUS_S = 0.15  # codec frames beyond the length in the edit list: at most a few
_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31}


class NotMediaError(Exception):
    """ffmpeg does not know the format either (never reaches the user)."""


class MediaSource:
    """An audio stream that PyAV decodes from the beginning."""

    def __init__(self, path: Path, format: str | None = None) -> None:
        """format: ffmpeg's name of a headerless format; None lets the content decide."""
        self._path = path
        self._cleanup = ExitStack()
        self.notes: list[str] = []
        try:
            self._open(format)
        except BaseException:
            self._cleanup.close()
            raise

    def _open(self, format: str | None) -> None:
        # An open file instead of a name: ffmpeg guesses from suffixes, and takes some names for
        # addresses.  A numbered descriptor has no suffix; the white list keeps playlists at home.
        descriptor = os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        handle = self._cleanup.enter_context(os.fdopen(descriptor, "rb"))
        try:
            container = av.open(handle, "r", format=format, options={"protocol_whitelist": ""})
        except av.FFmpegError as error:
            raise NotMediaError(error.strerror) from None
        self._cleanup.enter_context(container)
        streams = container.streams.audio
        if not streams:
            kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
            raise _no_audio(self._path, container.format.name, kinds)
        self.container = _container_name(container.format.name)
        if len(streams) > 1:
            self.notes.append(
                f"streams: the file has {len(streams)} audio streams; this is the 1st"
            )
        stream = streams[0]
        if stream.codec_context is None:
            raise AudioError(f"{self._path}: {self.container} with a codec that cannot be decoded")
        self.encoding = str(stream.codec_context.name)
        self.float_pcm = self.encoding.startswith("pcm_f")
        if self.encoding == "flac":
            # Without this a damaged block decodes to full-scale noise.
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
        self._blocks = self._decode(container, stream)
        self._first = next(self._blocks, None)
        if self._first is None:
            detail = "; ".join(note for note in self.notes if note.startswith("damaged"))
            raise AudioError(
                f"{self._path}: a {self.container} header, but no samples"
                + (f" ({detail})" if detail else ""),
                fix="record or fetch it again",
            )
        self.channels = self._first.shape[1]
        self.num_samples: int | None = None
        self.duration_s: float | None = None
        if self.container == "mp4" and stream.duration and stream.time_base:
            self.duration_s = float(stream.duration * stream.time_base)
            self.num_samples = round(self.duration_s * self.sample_rate)
        elif container.duration:
            self.duration_s = container.duration / av.time_base

    def _decode(self, container: Any, stream: Any) -> Iterator[Frames]:
        """Blocks (S, C) in order; ends, with a note, where the first damage is."""
        position = 0
        layout: tuple[int, int] | None = None
        try:
            for packet in container.demux(stream):
                for frame in packet.decode():
                    shape = (frame.sample_rate, frame.layout.nb_channels)
                    if layout is None:
                        layout = shape
                        self.sample_rate = int(frame.sample_rate)
                    elif shape != layout:
                        self._note_damage(position, f"rate and channels change to {shape}")
                        return
                    if self.encoding == "flac" and frame.pts is not None:
                        at = round(frame.pts * frame.time_base * frame.sample_rate)
                        if at > position + frame.sample_rate // 500:
                            self._note_damage(position, f"{at - position} samples are missing")
                            return
                    yield _to_frames(frame)
                    position += frame.samples
        except av.FFmpegError as error:
            self._note_damage(position, str(error.strerror))

    def _note_damage(self, position: int, reason: str) -> None:
        self.notes.append(f"damaged: only the first {position} samples decode ({reason})")

    def read(self, start: int, stop: int | None) -> Frames:
        """See `Source.read`; may be called once."""
        limit = self.num_samples
        kept: list[Frames] = []
        position = 0
        block = self._first
        while block is not None:
            kept.append(block[max(0, start - position) :])
            position += len(block)
            # Past the promised end the whole stream must be seen before it is known where to cut.
            if stop is not None and position >= stop and (limit is None or stop <= limit):
                break
            block = next(self._blocks, None)
        frames = kept[0] if len(kept) == 1 else np.concatenate(kept)
        if limit is not None and limit < position <= limit + _END_SURPLUS_S * self.sample_rate:
            frames = frames[: max(0, limit - start)]
        return frames if stop is None else frames[: stop - start]

    def end_notes(self, count: int) -> list[str]:
        """See `Source.end_notes`."""
        if self.container == "gsm" and gsm_has_partial_frame(self._path):
            return [f"truncated: the last frame is incomplete; {count} samples decode"]
        promised = self.num_samples
        if promised is None or any(note.startswith("damaged") for note in self.notes):
            return []
        if count < promised - 0.02 * self.sample_rate:
            return [f"truncated: the header promises {promised} samples, {count} decode"]
        return []

    def close(self) -> None:
        """Close the container and the file."""
        self._cleanup.close()


def _to_frames(frame: Any) -> Frames:
    """One decoded frame as (S, C) float32; integers become [-1, 1)."""
    array = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    kind = frame.format.name.removesuffix("p")
    if kind in ("flt", "dbl"):
        return np.ascontiguousarray(array, dtype=np.float32)
    offset = 128.0 if kind == "u8" else 0.0
    frames: Frames = ((array.astype(np.float64) - offset) / _SCALE[kind]).astype(np.float32)
    return frames


def _no_audio(path: Path, format_name: str, kinds: str) -> AudioError | NotMediaError:
    """A film without sound is worth saying; a text that ffmpeg plays as a terminal is not media."""
    if format_name in ("tty", "lrc", "srt", "webvtt", "ass") or format_name.endswith("_pipe"):
        return NotMediaError("no audio stream")
    return AudioError(f"{path}: {_container_name(format_name)} without audio ({kinds} only)")


def _container_name(format_name: str) -> str:
    """``"mov,mp4,m4a,3gp,3g2,mj2"`` -> ``"mp4"``: ffmpeg names families."""
    first = format_name.split(",")[0]
    return "mp4" if first == "mov" else first
