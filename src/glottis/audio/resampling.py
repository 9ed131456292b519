"""Another sample rate, by soxr in high quality: linear phase, no delay."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from glottis.audio.types import Audio
from glottis.errors import ConfigError

_REACH = 400  # samples of the lower rate: beyond them soxr's filter adds less than 1e-6


def resample(audio: Audio, sample_rate: int) -> Audio:
    """The same sound at ``sample_rate`` hertz: S * new // old samples.

    Overshoot of the filter beyond [-1, 1] is cut off.  Warnings travel along.
    """
    samples = resample_array(audio.samples, audio.sample_rate, sample_rate)
    return Audio(samples, sample_rate, audio.warnings)


def resample_array(
    samples: NDArray[np.float32], old_rate: int, new_rate: int
) -> NDArray[np.float32]:
    """(S,) float32 from one rate to another."""
    if isinstance(new_rate, bool) or not isinstance(new_rate, int) or new_rate <= 0:
        raise ConfigError(f"a sample rate is a positive whole number of hertz, not {new_rate!r}")
    if old_rate == new_rate:
        return samples
    result: NDArray[np.float32] = soxr.resample(samples, old_rate, new_rate, quality="HQ")
    # soxr rounds; rounding down makes the length of a part that of the same part of the whole.
    result = result[: len(samples) * new_rate // old_rate]
    return np.clip(result, -1.0, 1.0, out=result)


def margin_samples(old_rate: int, new_rate: int) -> int:
    """How many samples at ``old_rate`` around a crop its resampled values depend on."""
    return -(-_REACH * old_rate // min(old_rate, new_rate))
