"""What is odd about a whole recording: level, clipping, offset, length.  Never run on crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glottis.audio.pcm import mean_product
from glottis.audio.types import Audio
from glottis.errors import AudioError

QUIET_DB = -60.0  # root mean square without the offset, relative to full scale
FULL_SCALE_PEAK = 0.98  # mu-law and A-law end at 0.980 and 0.984
CLIPPED_SHARE = 1e-3
OFFSET = 0.02
SHORT_S = 0.1


def level_warnings(samples: NDArray[np.float32], sample_rate: int, peak: float) -> list[str]:
    """Warnings about (S,) samples whose largest magnitude is ``peak``."""
    warnings = []
    seconds = len(samples) / sample_rate
    if seconds < SHORT_S:
        warnings.append(
            f"short: {seconds:.4f} s (samples: {len(samples)}), less than {SHORT_S} s: "
            "hardly a frame of speech"
        )
    if len(samples) == 1:
        return warnings  # level and offset of one sample mean nothing
    mean = float(samples.mean(dtype=np.float64))
    power = mean_product(samples, samples) - mean * mean
    level_db = 10 * np.log10(max(power, 1e-20))
    if samples.max() == samples.min():
        warnings.append(f"silent: all {len(samples)} samples are {samples[0]:.3g}")
    elif level_db < QUIET_DB:
        steps = round(peak * 32768)
        warnings.append(f"quiet: {level_db:.0f} dBFS, the peak is {steps} steps of 16 bits")
    if abs(mean) > OFFSET:
        warnings.append(f"dc_offset: the mean is {mean:+.2f} of full scale")
    if peak >= FULL_SCALE_PEAK:
        high = np.float32(peak * 0.9995)
        at_peak = np.count_nonzero(samples >= high) + np.count_nonzero(samples <= -high)
        share = at_peak / len(samples)
        if share > CLIPPED_SHARE:
            warnings.append(f"clipped: {100 * share:.2f} % of the samples are at full scale")
    return warnings


def require_sound(clip: Audio, path: Path | str) -> Audio:
    """The clip, or `AudioError` if it holds nothing to judge: less than 0.1 s, or one value only.

    A model gives a number for such a file, and the number says nothing.
    """
    if clip.duration_s < SHORT_S:
        raise AudioError(
            f"{path}: {clip.duration_s:.4f} s of audio, less than {SHORT_S} s",
            why="a model would repeat it until it is long enough, and judge the repetition",
            fix="give a longer recording",
        )
    if clip.samples.max() == clip.samples.min():
        raise AudioError(
            f"{path}: all {len(clip.samples):,} samples are {clip.samples[0]:.3g}: digital silence",
            why="nobody speaks in it, and a score would say something all the same",
            fix="was the right channel recorded? is the file finished?",
        )
    return clip
