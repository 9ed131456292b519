"""Log-mel filterbank as Kaldi computes it.

Povey et al., "The Kaldi speech recognition toolkit", ASRU 2011 (feature-fbank).  Per frame: minus
its mean, pre-emphasis inside the frame (the first sample against itself), window, FFT of the next
power of two, power, triangles straight on the mel scale 1127 ln(1 + f / 700), ln(max(x, eps)).
Frames do not cross the ends of the clip (``snip_edges``).  There is no dither: with float32 input
the floor does what dither is for, and features stay a function of the waveform.
Shapes: B batch, S samples, F mel bands, T frames.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glottis.features._filters import (
    Array,
    bin_hz,
    check_band,
    require_filled,
    triangles,
    window_table,
)
from glottis.features._frontend import FrontEnd, FrontEndConfig, Precision
from glottis.features._registry import register_feature
from glottis.features._spectrum import emphasise, filtered, power_spectrum, table

_EPSILON = float(np.finfo(np.float32).eps)


class KaldiFbankConfig(FrontEndConfig):
    """wespeaker and 3D-Speaker: num_mels 80, window hamming (povey in 3D-Speaker), mean."""

    num_mels: int = Field(80, ge=1)
    """F, mel bands."""
    window_samples: int = Field(400, ge=16)
    """Length of a frame; the FFT has the next power of two."""
    window: Literal["povey", "hamming", "hann"] = "povey"
    """Symmetric analysis window."""
    pre_emphasis: float = Field(0.97, ge=0.0, le=1.0)
    """c in x[t] - c x[t-1]."""
    low_hz: float = Field(20.0, ge=0.0)
    """Lower edge of the first filter."""
    high_hz: float = Field(8000.0, gt=0.0)
    """Upper edge of the last filter."""
    full_scale: float = Field(32768.0, gt=0.0)
    """The waveform is multiplied by this: Kaldi works on the numbers of 16-bit files."""
    precision: Precision = "double"
    """Inside, up to the power spectrum; single is about 1.6 times as fast, and the only one on mps.
    In near-silent bins single is as far from the exact value as Kaldi's own code is."""


@register_feature("kaldi_fbank", KaldiFbankConfig)
class KaldiFbank(FrontEnd):
    """Kaldi filterbank, (B, S) -> (B, num_mels, (S - window_samples) // hop_samples + 1)."""

    filters: Tensor
    window: Tensor

    def __init__(self, config: KaldiFbankConfig) -> None:
        super().__init__(config, config.num_mels, config.window_samples)
        self.window_samples = config.window_samples
        self.first_centre = config.window_samples // 2
        self.pre_emphasis, self.full_scale = config.pre_emphasis, config.full_scale
        self.fft_size = 1 << (config.window_samples - 1).bit_length()
        window = window_table(config.window, config.window_samples, periodic=False)
        self.window_starts_above_zero = bool(window[0] > 1e-12)
        self.register_buffer("window", table(window, config.precision), persistent=False)
        self.register_buffer("filters", table(_filters(config, self.fft_size)), persistent=False)

    def num_frames(self, num_samples: int) -> int:
        """(S - window_samples) // hop_samples + 1."""
        return (num_samples - self.window_samples) // self.hop_samples + 1

    def compute(self, wave: Tensor) -> Tensor:
        """(B, S) -> (B, F, T)."""
        rest = 1.0 - self.pre_emphasis
        scaled = wave.to(self.window.dtype) * self.full_scale
        frames = self._frames(scaled)  # (B, T, window), a view
        mean = frames.mean(-1, keepdim=True)
        # (x[t] - m) - c (x[t-1] - m) = (x[t] - c x[t-1]) - (1 - c) m: one filter over the clip
        sharp = self._frames(emphasise(scaled, self.pre_emphasis))
        windowed = (sharp - rest * mean) * self.window
        if self.window_starts_above_zero:  # the first sample of a frame counts itself as its past
            first = (rest * frames[..., :1] - sharp[..., :1]) * self.window[:1]
            windowed[..., :1] += first
        power = power_spectrum(windowed, self.fft_size)
        return torch.log(filtered(self.filters, power).clamp_min(_EPSILON))

    def _frames(self, wave: Tensor) -> Tensor:
        return wave.unfold(1, self.window_samples, self.hop_samples)


def _filters(config: KaldiFbankConfig, fft_size: int) -> Array:
    """(F, bins) triangles straight in mel; the Nyquist bin belongs to no filter."""
    low_hz, high_hz = config.low_hz, config.high_hz
    check_band(low_hz, high_hz, config.sample_rate)
    low, high = 1127.0 * np.log1p(np.array([low_hz, high_hz]) / 700.0)
    corners = np.linspace(low, high, config.num_mels + 2)
    points = 1127.0 * np.log1p(bin_hz(fft_size, config.sample_rate) / 700.0)
    filters = triangles(corners, points)
    filters[:, -1] = 0.0
    require_filled(filters, fft_size)
    return filters
