"""What decoded audio is: samples never travel without their rate.  S samples, C channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glottis.errors import AudioError

Frames = NDArray[np.float32]
"""(S, C): all channels of a stretch of sound, as decoders give them."""


@dataclass(frozen=True, eq=False)
class Audio:
    """One channel of sound.

    samples: (S,) float32 in [-1, 1].
    sample_rate: in hertz.
    warnings: what is odd about the whole recording, each as ``code: text`` (docs/audio.md).
    Raises AudioError for anything but a 1-D float32 array and a positive whole rate.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.samples, np.ndarray) or self.samples.ndim != 1:
            shape = getattr(self.samples, "shape", type(self.samples).__name__)
            raise AudioError(
                f"audio must be one-dimensional (S,), not {shape}",
                why="a channel axis taken for time gives nonsense without an error",
                fix="choose a channel, or let decode(path, channel=...) do it",
            )
        if self.samples.dtype != np.float32:
            raise AudioError(
                f"audio must be float32 in [-1, 1], not {self.samples.dtype}",
                fix="convert 16-bit integers with glottis.audio.to_float",
            )
        rate = self.sample_rate
        if isinstance(rate, bool) or not isinstance(rate, int) or rate <= 0:
            raise AudioError(f"a sample rate is a positive whole number of hertz, not {rate!r}")

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a file says, without decoding it.

    num_samples: per channel; None where only decoding would tell (webm, raw aac).
    container, encoding: lower case names ("wav", "pcm_16"; "mp4", "aac").
    duration_s: from num_samples, else the container's own (approximate) figure, else None.
    """

    sample_rate: int
    channels: int
    num_samples: int | None
    container: str
    encoding: str
    duration_s: float | None


def warning_code(warning: str) -> str:
    """``"clipped: 2 % of ..."`` -> ``"clipped"``."""
    return warning.partition(":")[0]
