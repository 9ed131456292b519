"""How long and how large a packed store will be, from the headers of a sample of its files."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glottis.audio.decoding import decode, probe
from glottis.audio.quarantine import Broken
from glottis.audio.storefiles import Codec
from glottis.errors import AudioError, DataError

_SAMPLED = 400  # durations of speech corpora scatter by half their mean: the total is good to 3 %
_FLAC_SHARE = 0.65  # of 16-bit samples; measured on speech at 16 kHz
_RESERVE = 1.05


@dataclass(frozen=True)
class PackItem:
    """One clip to pack: its name in the manifest, its file, and which part of it.

    start_s, end_s: in seconds; by default the whole file (end_s None: to its end).
    """

    utterance: str
    path: Path
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        end = math.inf if self.end_s is None else self.end_s
        if not 0 <= self.start_s < end:
            raise DataError(
                f"'{self.utterance}': {self.start_s} to {self.end_s} s is not a piece of a file",
                fix="start_s is 0 or more, end_s is greater",
            )

    @property
    def duration_s(self) -> float | None:
        """Seconds of a piece with a known end, else None."""
        return None if self.end_s is None else self.end_s - self.start_s


@dataclass(frozen=True)
class PackEstimate:
    """Extrapolated from ``num_sampled`` files; ``unreadable`` are those of them that are broken."""

    seconds: float
    bytes: int
    free_bytes: int
    num_sampled: int
    unreadable: tuple[Broken, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the store fits, with a reserve of 5 %."""
        return self.bytes * _RESERVE <= self.free_bytes


def estimate(
    items: Sequence[PackItem],
    codec: Codec = "pcm16",
    sample_rate: int = 16000,
    *,
    dst: Path = Path(),
) -> PackEstimate:
    """Seconds of sound, bytes on disk, and the bytes that are free where ``dst`` will be.

    Deterministic: the sampled files are spread evenly over the items.
    """
    if not items:
        raise DataError("there is nothing to pack: zero items", fix="check the manifest or filter")
    positions = np.unique(np.linspace(0, len(items) - 1, min(_SAMPLED, len(items))).round())
    seconds, unreadable = [], []
    for position in positions.astype(int):
        item = items[position]
        try:
            duration = probe(item.path).duration_s
            if duration is None:  # the header does not say
                duration = decode(item.path).duration_s
            end = duration if item.end_s is None else min(duration, item.end_s)
            seconds.append(max(0.0, end - item.start_s))
        except AudioError as error:
            unreadable.append(Broken.from_error(item.utterance, item.path, error))
    total = float(np.sum(seconds)) / len(positions) * len(items)
    share = _FLAC_SHARE if codec == "flac" else 1.0
    return PackEstimate(
        seconds=total,
        bytes=round(total * sample_rate * 2 * share),
        free_bytes=shutil.disk_usage(_existing(dst)).free,
        num_sampled=len(positions),
        unreadable=tuple(unreadable),
    )


def _existing(path: Path) -> Path:
    """The nearest folder that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
