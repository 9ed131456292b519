"""An opened audio file, whatever decodes it.  The content decides which decoder, not the suffix.

libsndfile (soundfile) takes what it knows; PyAV (ffmpeg's libraries, in process) takes the rest.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Protocol

import soundfile

from glottis.audio.headers import (
    looks_like_gsm,
    not_audio,
    ogg_end,
    require_binary,
    require_file,
    wav_missing_bytes,
)
from glottis.audio.types import Frames
from glottis.errors import AudioError

# Formats in which libsndfile's seek lands on the exact sample and decoding from there gives the
# same values as from the start.  Not Vorbis (wrong on the last page: its end trimming shifts
# everything), not Opus (state), not MP3 (state, and mpg123 complains on stderr after a seek).
_INTEGERS = {"pcm_u8", "pcm_s8", "pcm_16", "pcm_24", "pcm_32", "ulaw", "alaw"}
_EXACT_SEEK = _INTEGERS | {"float", "double"}
_MOST_SAMPLES = 1 << 33  # more is a header that does not know its length


class Source(Protocol):
    """What `decode` needs from a decoder.

    num_samples: what the header promises; None if it says nothing exact.
    float_pcm: stored as floating point, so that values beyond full scale are not an overshoot.
    bounded: stored as integers, so that no sample can be NaN or beyond full scale.
    notes: warnings that arose while reading.
    """

    sample_rate: int
    channels: int
    num_samples: int | None
    duration_s: float | None
    container: str
    encoding: str
    float_pcm: bool
    bounded: bool
    notes: list[str]

    def read(self, start: int, stop: int | None) -> Frames:
        """Samples start..stop as (S, C) float32, fewer where the file ends or is damaged.

        May be called once.
        """
        ...

    def end_notes(self, count: int) -> list[str]:
        """Warnings about a whole read that gave ``count`` samples: was there more once?"""
        ...

    def close(self) -> None: ...


def open_source(path: Path) -> Source:
    """The right decoder for the content of ``path``.  Raises AudioError with the reason."""
    require_file(path)
    try:
        # Bytes: soundfile cannot encode a name that is not Unicode (on Windows all names are).
        file = soundfile.SoundFile(os.fspath(path) if os.name == "nt" else os.fsencode(path))
    except soundfile.LibsndfileError:
        return _open_other(path)
    # RAW is libsndfile's guess from the suffix; no frames may be a header that was never updated.
    container = file.format
    if container == "RAW" or not 0 < file.frames <= _MOST_SAMPLES:
        file.close()
        return _open_other(path)
    return SoundfileSource(path, file, container)


def _open_other(path: Path) -> Source:
    from glottis.audio.media import MediaSource, NotMediaError  # PyAV takes 0.2 s to import

    require_binary(path)
    try:
        return MediaSource(path, "gsm" if looks_like_gsm(path) else None)
    except NotMediaError:
        raise not_audio(path) from None


class SoundfileSource:
    """wav, flac, ogg, opus, mp3 and the other formats of libsndfile."""

    def __init__(self, path: Path, file: soundfile.SoundFile, container: str) -> None:
        self._path, self._file = path, file
        self.sample_rate = int(file.samplerate)
        self.channels = int(file.channels)
        self.num_samples: int | None = int(file.frames)
        self.duration_s: float | None = file.frames / file.samplerate
        self.container = {"WAVEX": "wav", "MPEG": "mp3"}.get(container, container.lower())
        self.encoding = file.subtype.lower()
        self.float_pcm = self.encoding in ("float", "double")
        self.bounded = self.encoding in _INTEGERS
        self.notes: list[str] = []

    def read(self, start: int, stop: int | None) -> Frames:
        """See `Source.read`."""
        file, total = self._file, self._file.frames
        start, stop = min(start, total), total if stop is None else min(stop, total)
        try:
            if self.encoding in _EXACT_SEEK and file.seekable():
                file.seek(start)
                frames: Frames = file.read(stop - start, dtype="float32", always_2d=True)
            else:
                # One read from the very beginning: even a seek to sample 0 changes what MP3 gives.
                frames = file.read(stop, dtype="float32", always_2d=True)[start:]
        except soundfile.LibsndfileError as error:
            return self._salvage(start, stop, _reason(error))
        return frames

    def _salvage(self, start: int, stop: int, reason: str) -> Frames:
        """What ffmpeg decodes before the damage: it checks every frame, and stops at a gap."""
        from glottis.audio.media import MediaSource, NotMediaError

        why = "nothing decodes there, and zeros in its place would be invented data"
        place = f"{self._path}: damaged between {start} and {stop} of {self.num_samples} samples"
        try:
            with closing(MediaSource(self._path)) as media:
                frames = media.read(start, stop)
        except NotMediaError:
            raise AudioError(f"{place} ({reason})", why=why) from None
        if not len(frames):
            raise AudioError(f"{place} ({reason})", why=why)
        if len(frames) < stop - start:  # else the damage begins just behind what was wanted
            self.notes.append(
                f"damaged: {len(frames)} of {stop - start} samples decode before the damage "
                f"({reason})"
            )
        return frames

    def end_notes(self, count: int) -> list[str]:
        """See `Source.end_notes`."""
        if self.notes or self.num_samples is None:
            return []
        if count < self.num_samples:
            return [f"truncated: the header promises {self.num_samples} samples, {count} decode"]
        if self.container == "wav" and (missing := wav_missing_bytes(self._path)):
            return [f"truncated: the header promises {missing} more bytes of samples"]
        if self.container == "ogg":
            ended, position = ogg_end(self._path)
            if not ended:
                return [f"truncated: the stream has no end; {count} samples decode"]
            promised = position
            if self.encoding == "opus":
                promised = position * self.sample_rate // 48000
            if count < promised - self.sample_rate // 50:  # Opus counts its 6.5 ms of pre-skip
                return [f"truncated: the stream promises {promised} samples, {count} decode"]
        return []

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _reason(error: soundfile.LibsndfileError) -> str:
    return str(error.error_string).removeprefix("Error : ").strip(" .")
