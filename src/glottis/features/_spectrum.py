"""The centred power spectrum and the logarithmic filterbank of log-mel, LFCC and MFCC.

Shapes: B batch, S samples, T frames, F filters or features, bins = fft_size / 2 + 1.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from glottis.errors import ConfigError
from glottis.features._filters import Array, window_table
from glottis.features._frontend import FrontEndConfig, Precision, Tables
from glottis.features._logarithm import Logarithm, LogConfig


class SpectrumConfig(LogConfig, FrontEndConfig):
    """Frames, spectrum and logarithm."""

    fft_size: int = Field(512, ge=16)
    """Length of the FFT; the window is zero-padded to it."""
    window: Literal["hamming", "hann"] = "hamming"
    """Periodic analysis window."""
    padding: Literal["reflect", "zero"] = "reflect"
    """What lies outside the clip; frame t is centred on sample t * hop_samples."""
    pre_emphasis: float = Field(0.0, ge=0.0, lt=1.0)
    """c in x[t] - c x[t-1] over the whole clip, x[-1] = x[1]; 0 = off, 0.97 is usual."""
    low_hz: float = Field(0.0, ge=0.0)
    """Lower edge of the first filter."""
    high_hz: float = Field(8000.0, gt=0.0)
    """Upper edge of the last filter."""
    precision: Precision = "single"
    """Inside, up to the power spectrum; double costs about 1.6 times as much (not on mps)."""


def power_spectrum(frames: Tensor, fft_size: int) -> Tensor:
    """(..., window) windowed frames -> (..., bins) float32 squared magnitudes."""
    spectrum = torch.fft.rfft(frames, n=fft_size)
    power: Tensor = spectrum.real.square() + spectrum.imag.square()
    return power.to(torch.float32)


def table(values: Array, precision: Precision = "single") -> Tensor:
    """A float64 table as a tensor, rounded once."""
    return torch.from_numpy(values).to(torch.float32 if precision == "single" else torch.float64)


def emphasise(wave: Tensor, coefficient: float) -> Tensor:
    """x[t] - c x[t-1] over (B, S), where the sample before the first is x[1]."""
    previous = torch.cat([wave[:, 1:2], wave[:, :-1]], dim=1)
    # neighbours are close: their difference is exact in float32, and (1 - c) x[t-1] rounds
    # relative to the small result instead of the large input
    return (wave - previous) + (1.0 - coefficient) * previous


def filtered(filters: Tensor, power: Tensor) -> Tensor:
    """(F, bins) filters on (B, T, bins) -> (B, F, T), contiguous."""
    return torch.matmul(filters, power.transpose(1, 2))


class LogFilterbank(Tables):
    """(B, S) -> (B, F, T): centred frames, power spectrum, filters, logarithm; T = S // hop + 1."""

    filters: Tensor
    window: Tensor

    def __init__(self, config: SpectrumConfig, filters: Array) -> None:
        super().__init__()
        _check(config)
        self.fft_size, self.hop = config.fft_size, config.hop_samples
        self.window_samples = config.window_samples
        self.pre_emphasis = config.pre_emphasis
        self.mode = "reflect" if config.padding == "reflect" else "constant"
        # the window sits in the middle of the FFT frame; the zeros around it need no samples
        self.left = config.fft_size // 2 - (config.fft_size - config.window_samples) // 2
        self.right = config.window_samples - self.left
        self.logarithm = Logarithm(config)
        window = window_table(config.window, config.window_samples, periodic=True)
        self.register_buffer("window", table(window, config.precision), persistent=False)
        self.register_buffer("filters", table(filters), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """(B, S) -> (B, F, T)."""
        wave = wave.to(self.window.dtype)
        if self.pre_emphasis:
            wave = emphasise(wave, self.pre_emphasis)
        padded = functional.pad(wave, (self.left, self.right), mode=self.mode)
        frames = padded.unfold(1, self.window_samples, self.hop)  # (B, T, window), a view
        power = power_spectrum(frames * self.window, self.fft_size)
        return self.logarithm(filtered(self.filters, power))


def _check(config: SpectrumConfig) -> None:
    if config.window_samples > config.fft_size:
        raise ConfigError(
            f"window_samples {config.window_samples} is more than fft_size {config.fft_size}",
            fix="make fft_size the next power of two",
        )
