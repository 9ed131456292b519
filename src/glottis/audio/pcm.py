"""float32 in [-1, 1] to 16-bit integers and back, without loss for 16-bit sources."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 14
FULL_SCALE = 32768.0  # libsndfile divides 16-bit samples by this: the way back must multiply by it


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Rounded to 16 bits; +1.0 becomes 32767.  ``to_int16(to_float(x))`` equals x."""
    scaled = np.rint(samples * np.float32(FULL_SCALE))
    clipped: NDArray[np.float32] = np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1, out=scaled)
    return clipped.astype(np.int16)


def to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """16-bit integers as float32 in [-1, 1)."""
    return samples.astype(np.float32) / np.float32(FULL_SCALE)


def mean_product(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Mean of a * b over (S,) samples; of an hour, without copies and without losing digits."""
    total = 0.0
    for start in range(0, len(a), _BLOCK):
        # einsum stays on this core: BLAS would start threads in every worker.
        total += float(np.einsum("s,s->", a[start : start + _BLOCK], b[start : start + _BLOCK]))
    return total / max(1, len(a))
