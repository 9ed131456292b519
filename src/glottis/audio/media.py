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

from glottis.audio.types import Frames
from glottis.errors import AudioError

# Only formats that announce themselves: ffmpeg takes random bytes for sound of a game console.
_FORMATS = (
    "mov,mp4,m4a,3gp,matroska,webm,aac,mp3,ogg,flac,wav,w64,gsm,aiff,au,caf,asf,amr,ac3,eac3,"
    "wv,ape,tta,nist,avi,flv,mpeg,mpegts"
)
_END_SURPLUS_S = 0.15  # codec frames beyond the length in the edit list: at most a few
_MISSING_S = 0.05  # a codec's delay and last frame may count or not
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
        # addresses.  A numbered descriptor has no suffix.  No protocols: nothing else is opened.
        descriptor = os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        handle = self._cleanup.enter_context(os.fdopen(descriptor, "rb"))
        options = {"protocol_whitelist": "", "format_whitelist": _FORMATS}
        try:
            container = av.open(handle, "r", format=format, options=options)
        except av.FFmpegError as error:
            raise NotMediaError(error.strerror) from None
        self._cleanup.enter_context(container)
        first_name = container.format.name.split(",")[0]  # ffmpeg names families
        self.container = "mp4" if first_name == "mov" else first_name
        streams = container.streams.audio
        if not streams:
            kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
            raise AudioError(f"{self._path}: {self.container} without audio ({kinds} only)")
        if len(streams) > 1:
            self.notes.append(
                f"streams: the file has {len(streams)} audio streams; this is the 1st"
            )
        stream = streams[0]
        if stream.codec_context is None:
            raise AudioError(f"{self._path}: {self.container} with a codec that cannot be decoded")
        self.encoding = str(stream.codec_context.name)
        self.float_pcm = self.encoding.startswith("pcm_f")
        self.bounded = False  # most are lossy
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
        # With pictures beside it the length is theirs; others guess it from the bit rate.
        self._length_is_known = self.container == "mp4" or (
            self.container in ("matroska", "asf") and len(container.streams) == 1
        )

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
        """See `Source.read`."""
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
        if not self._length_is_known or self.duration_s is None:
            return []
        if any(note.startswith("damaged") for note in self.notes):
            return []
        seconds = count / self.sample_rate
        if seconds < self.duration_s - _MISSING_S:
            return [f"truncated: the header promises {self.duration_s:.2f} s, {seconds:.2f} decode"]
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
