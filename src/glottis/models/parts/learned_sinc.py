"""Sinc band-pass filters on the waveform whose edges are learned.

Ravanelli and Bengio, "Speaker recognition from raw waveform with SincNet", SLT 2018: equations 4 to
8.  With a sine beside every cosine filter: Pariente et al., "Filterbank design for end-to-end
speech separation", ICASSP 2020.

Shapes: B batch, S samples, T frames, C filters, K taps.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.features._filters import hz_to_mel, mel_to_hz
from glottis.models.parts.precision import at_least_float32, no_autocast

_MIN_HZ = 50.0  # least lower edge, and least width of a band
_FIRST_HZ = 30.0  # lower edge of the first band at the start, before _MIN_HZ is added


class LearnedSinc(nn.Module):
    """(B, S) wave -> (B, C, T), T = (S + 2 padding - K) // stride + 1.

    num_filters: bands; C is twice as many with ``sine``, which puts a sine filter of the same edges
    beside every cosine filter (all cosines first).  kernel_size: K, odd.  padding: zeros on both
    sides.  window: a Hamming window, "symmetric" or on the grid of SincNet's code ("sincnet": half
    a tap wider, its centre between two taps).

    A band lies from 50 + |low_hz| to at least 50 Hz above, at most to half the rate; its filter is
    divided by twice the width.  Initialisation: edges equally spaced in mel from 30 Hz to 100 Hz
    below half the rate.  float32 under autocast; the two tables are in no state dict.
    """

    omega: Tensor
    window: Tensor

    def __init__(
        self,
        num_filters: int,
        kernel_size: int = 251,
        stride: int = 1,
        *,
        sample_rate: int = 16000,
        padding: int = 0,
        sine: bool = False,
        window: Literal["symmetric", "sincnet"] = "symmetric",
    ) -> None:
        super().__init__()
        assert kernel_size % 2 == 1
        self.stride, self.padding, self.sine = stride, padding, sine
        self.highest_hz = sample_rate / 2
        self.num_channels = num_filters * (2 if sine else 1)
        edges = _mel_edges(num_filters, _FIRST_HZ, self.highest_hz - 2 * _MIN_HZ)
        self.low_hz = nn.Parameter(edges[:-1].clone())
        self.band_hz = nn.Parameter(edges.diff())
        half = kernel_size // 2
        # float32 from the first operation on, as published: sin(omega f) has arguments up to 400
        omega = 2 * math.pi * (torch.arange(-half, 0.0) / sample_rate)
        self.register_buffer("omega", omega, persistent=False)  # (K // 2,)
        self.register_buffer("window", _half_hamming(kernel_size, window), persistent=False)

    def num_frames(self, num_samples: int) -> int:
        """T for S samples."""
        kernel_size = 2 * len(self.omega) + 1
        return (num_samples + 2 * self.padding - kernel_size) // self.stride + 1

    def filters(self) -> Tensor:
        """(C, K) for the edges as they are now."""
        low = _MIN_HZ + at_least_float32(self.low_hz).abs()[:, None]
        high = (low + _MIN_HZ + at_least_float32(self.band_hz).abs()[:, None]).clamp(
            _MIN_HZ, self.highest_hz
        )
        # a band that has drifted up to half the rate is empty: nothing, where 0 / 0 would be NaN
        width = (2 * (high - low)).clamp_min(1.0)
        half_omega = self.omega / 2
        low_phase, high_phase = low * self.omega, high * self.omega
        left = (high_phase.sin() - low_phase.sin()) / half_omega * self.window
        cosine = torch.cat([left, 2 * (high - low), left.flip(1)], dim=1) / width
        if not self.sine:
            return cosine
        left = (low_phase.cos() - high_phase.cos()) / half_omega * self.window
        sine = torch.cat([left, torch.zeros_like(low), -left.flip(1)], dim=1) / width
        return torch.cat([cosine, sine])

    def forward(self, wave: Tensor) -> Tensor:
        with no_autocast(wave):
            wave, filters = at_least_float32(wave), self.filters()
            return functional.conv1d(
                wave[:, None], filters[:, None], stride=self.stride, padding=self.padding
            )


def _mel_edges(num_bands: int, low_hz: float, high_hz: float) -> Tensor:
    """(num_bands + 1,) float32 frequencies equally spaced on 2595 log10(1 + f / 700)."""
    low, high = hz_to_mel(np.array([low_hz, high_hz]))
    # mel are rounded before they become Hz: so the published networks start, to the last bit
    return torch.from_numpy(mel_to_hz(np.linspace(low, high, num_bands + 1, dtype=np.float32)))


def _half_hamming(kernel_size: int, kind: str) -> Tensor:
    """(K // 2,) left half of a Hamming window of K taps."""
    half = kernel_size // 2
    if kind == "symmetric":
        phase = torch.arange(half, dtype=torch.float64) / (kernel_size - 1)
    else:
        phase = torch.linspace(0, kernel_size / 2 - 1, half, dtype=torch.float64) / kernel_size
    return (0.54 - 0.46 * torch.cos(2 * math.pi * phase)).float()
