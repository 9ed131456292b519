"""Random numbers as pure functions of what they are for.

``generator(seed, "augment", step, item)`` gives the same stream on every machine, in every worker
and after every resume.  Nothing in Glottis draws from a global generator.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def stream_key(seed: int, *path: int | str) -> tuple[int, int]:
    """128 bits that depend on the seed and on every element of the path (and on its type)."""
    text = repr((int(seed), *path)).encode()
    digest = hashlib.blake2b(text, digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def generator(seed: int, *path: int | str) -> np.random.Generator:
    """An independent numpy generator for this seed and path (Philox, keyed by a hash)."""
    return np.random.Generator(np.random.Philox(key=np.array(stream_key(seed, *path), np.uint64)))


def torch_generator(seed: int, *path: int | str, device: str = "cpu") -> torch.Generator:
    """An independent torch generator for this seed and path."""
    return torch.Generator(device=device).manual_seed(stream_key(seed, *path)[0] >> 1)
