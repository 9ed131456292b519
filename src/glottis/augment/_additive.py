"""Adding sounds at a measured signal-to-noise ratio.  n items, S samples."""

from __future__ import annotations

import torch
from torch import Tensor

from glottis.augment._bank import SILENT_POWER


def power(wave: Tensor) -> Tensor:
    """(n, S) -> (n, 1) mean square."""
    return wave.square().mean(dim=1, keepdim=True)


def gain_for_snr(wave: Tensor, noise: Tensor, snr_db: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 1) factor for ``noise`` and an (n, 1) mask of pairs that have no ratio.

    With powers P measured on these very samples, 10 log10(P_wave / P_(factor noise)) = snr_db.
    The factor is 0 where one of the two is silent (below -100 dB): a ratio to silence does not
    exist, and the loudest noise would be divided by nothing.
    """
    signal, other = power(wave), power(noise)
    silent = (signal <= SILENT_POWER) | (other <= SILENT_POWER)
    ratio = signal / (other.clamp_min(SILENT_POWER) * 10.0 ** (snr_db / 10.0))
    return torch.where(silent, 0.0, ratio.sqrt()), silent
