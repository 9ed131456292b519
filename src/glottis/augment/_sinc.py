"""Batched resampling by a ratio of small whole numbers: a bank of windowed sincs, one convolution.

Output sample m * up + j is the input at (m * up + j) * down / up; the j-th of ``up`` filters makes
all outputs with this remainder, so that one strided convolution makes them all.
Kaiser window: Oppenheim and Schafer, "Discrete-time signal processing", section 7.5.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_ZEROS = 48  # zero crossings on each side: passes 0.90 of the band
_ROLLOFF = 0.95  # half amplitude, as a share of the lower Nyquist frequency
_KAISER_BETA = 10.0  # stop band below -95 dB


class Resampler:
    """(n, S) -> (n, num_out) at positions 0, step, 2 step ... of the input.

    step: input samples per output sample; above 1 shortens (faster, higher), below 1 lengthens.
    """

    def __init__(self, step: Fraction) -> None:
        self.down, self.up = step.numerator, step.denominator
        cutoff = _ROLLOFF * min(1.0, 1.0 / float(step))
        self.reach = math.ceil(_ZEROS / cutoff)
        taps = np.arange(-self.reach, self.reach + self.down + 1)
        positions = np.arange(self.up) * (self.down / self.up)
        distance = taps[None, :] - positions[:, None]
        ratio = np.clip(distance / self.reach, -1.0, 1.0)
        window = np.i0(_KAISER_BETA * np.sqrt(1.0 - ratio**2)) / np.i0(_KAISER_BETA)
        inside = np.abs(distance) <= self.reach
        kernel = cutoff * np.sinc(cutoff * distance) * window * inside
        kernel /= kernel.sum(axis=1, keepdims=True)  # every phase passes DC alike
        self.kernel = torch.from_numpy(kernel).to(torch.float32).unsqueeze(1)  # (up, 1, taps)

    def __call__(self, wave: Tensor, num_out: int) -> Tensor:
        """Zeros are assumed outside of the input."""
        blocks = -(-num_out // self.up)
        needed = (blocks - 1) * self.down + self.kernel.shape[2]
        right = max(0, needed - self.reach - wave.shape[1])
        padded = functional.pad(wave, (self.reach, right))[:, :needed]
        with torch.autocast(wave.device.type, enabled=False):
            phases = functional.conv1d(padded.unsqueeze(1), self.kernel, stride=self.down)
        return phases.transpose(1, 2).flatten(1)[:, :num_out]  # (n, blocks, up) -> (n, num_out)

    def to(self, device: torch.device | str) -> Resampler:
        """Move the filters."""
        self.kernel = self.kernel.to(device)
        return self
