"""float32 in [-1, 1] to 16-bit integers and back, without loss for 16-bit sources."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FULL_SCALE = 32768.0  # libsndfile divides 16-bit samples by this: the way back must multiply by it


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Rounded to 16 bits; +1.0 becomes 32767.  ``to_int16(to_float(x))`` equals x."""
    scaled = np.rint(samples * np.float32(FULL_SCALE))
    clipped: NDArray[np.float32] = np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1, out=scaled)
    return clipped.astype(np.int16)


def to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """16-bit integers as float32 in [-1, 1)."""
    return samples.astype(np.float32) / np.float32(FULL_SCALE)
