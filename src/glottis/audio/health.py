"""What is odd about a whole recording: level, clipping, offset, length.  Never run on crops."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
            f"short: {len(samples)} samples are {seconds:.4f} s, less than {SHORT_S} s: "
            "hardly a frame of speech"
        )
    # np.dot sums float32 pairwise in blocks: good to 1e-5, and ten times faster than float64.
    mean = float(samples.mean(dtype=np.float64))
    power = float(np.dot(samples, samples)) / len(samples) - mean * mean
    level_db = 10 * np.log10(max(power, 1e-20))
    if samples.max() == samples.min():
        warnings.append(f"silent: all {len(samples)} samples are {samples[0]:.3g}")
    elif level_db < QUIET_DB:
        steps = round(peak * 32768)
        warnings.append(f"quiet: {level_db:.0f} dBFS, the peak is {steps} steps of 16 bits")
    if abs(mean) > OFFSET:
        warnings.append(f"dc_offset: the mean is {mean:+.2f} of full scale")
    if peak >= FULL_SCALE_PEAK and len(samples) > 1:
        high = np.float32(peak * 0.9995)
        share = (np.count_nonzero(samples >= high) + np.count_nonzero(samples <= -high)) / len(
            samples
        )
        if share > CLIPPED_SHARE:
            warnings.append(f"clipped: {100 * share:.2f} % of the samples are at full scale")
    return warnings
