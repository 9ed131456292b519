"""What every front end promises: (B, S) float32 waveforms in, (B, F, T) float32 features out.

Shapes: B batch, S samples, F features, T frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from glottis.config import Config
from glottis.errors import AudioError

Normalise = Literal["none", "mean", "mean_var"]
Precision = Literal["single", "double"]

_VARIANCE_EPS = 1e-5  # the instance norm of the published ResNetSE34L checkpoints


class TimingConfig(Config):
    """What every front end is told; lengths are samples, so it means one thing at one rate."""

    sample_rate: int = Field(16000, ge=1000)
    """Samples per second of the waveforms."""
    hop_samples: int = Field(160, ge=1)
    """Samples from one frame to the next."""
    normalise: Normalise = "none"
    """Over time, per feature: nothing, minus the mean (CMN), or mean 0 and variance 1."""


class FrontEndConfig(TimingConfig):
    """A front end with one window for all features."""

    window_samples: int = Field(400, ge=16)
    """Length of the analysis window."""


class Tables(nn.Module):
    """A module whose buffers are tables: they move between devices and never change their type."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Tables:
        tables = {name: table for name, table in self._buffers.items() if table is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, table in tables.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype != table.dtype:
                self._buffers[name] = table.to(moved.device)
        return self


class FrontEnd(Tables):
    """Base of the front ends: checks the input, leaves autocast, normalises over time.

    A subclass implements `compute`.  Windows and filterbanks are non-persistent buffers: they
    follow ``.to(device)``, never appear in a state dict and keep their type when the model around
    them is cast to half precision.

    num_features: F.  sample_rate: of the waveforms.  hop_samples: from one frame to the next.
    min_samples: the shortest input, mostly one window: of less most would be padding.
    first_centre: the sample in the middle of frame 0; frame t lies t * hop_samples later.
    """

    first_centre = 0

    def __init__(self, config: TimingConfig, num_features: int, min_samples: int) -> None:
        super().__init__()
        self.config: Config = config
        self.num_features, self.sample_rate = num_features, config.sample_rate
        self.hop_samples, self.min_samples = config.hop_samples, min_samples
        self.normalise: Normalise = config.normalise

    def num_frames(self, num_samples: int) -> int:
        """T for S samples: S // hop_samples + 1 unless a front end says otherwise."""
        return num_samples // self.hop_samples + 1

    def compute(self, wave: Tensor) -> Tensor:
        """(B, S) float32 -> (B, F, T) before the normalisation, always outside autocast."""
        raise NotImplementedError

    def forward(self, wave: Tensor) -> Tensor:
        """(B, S) float32 waveforms in [-1, 1] -> (B, F, T) float32 features.

        Raises AudioError for another type or rank and below `min_samples`.
        """
        self._check(wave)
        # fp32: a power spectrum spans more than bf16's 8 bits and fp16's range
        kind = "cpu" if wave.device.type == "meta" else wave.device.type  # meta has no autocast
        with torch.autocast(kind, enabled=False):
            if wave.device.type != "cpu" or torch.compiler.is_compiling():
                return normalise_over_time(self.compute(wave), self.normalise)
            # one clip at a time stays in the cache (1.4 to 1.7 times as fast as a batch of 32 x
            # 3 s) and makes a result independent of its batch, bit for bit
            items = torch.split(wave, 1)
            each = [normalise_over_time(self.compute(item), self.normalise) for item in items]
            return torch.cat(each)

    def _check(self, wave: Tensor) -> None:
        if wave.ndim != 2:
            raise AudioError(
                f"the front end was given a tensor of shape {tuple(wave.shape)}",
                fix="pass waveforms as (batch, samples); one clip is wave.unsqueeze(0)",
            )
        if wave.dtype != torch.float32:
            raise AudioError(
                f"the front end was given a waveform of type {wave.dtype}",
                why="integers have another full scale, half precision loses quiet speech",
                fix="pass float32 in [-1, 1]; int16 samples are divided by 32768",
            )
        if wave.shape[1] < self.min_samples:
            raise AudioError(
                f"the waveform has {wave.shape[1]} samples, "
                f"this front end needs at least {self.min_samples}",
                fix="repeat or pad short clips before they reach the model",
            )


def normalise_over_time(features: Tensor, kind: Normalise) -> Tensor:
    """Per item and feature over the frames of (B, F, T).

    ``mean`` subtracts the mean; ``mean_var`` also divides by sqrt(biased variance + 1e-5), which is
    an instance norm without affine terms.
    """
    if kind == "none":
        return features
    centred = features - features.mean(-1, keepdim=True)
    if kind == "mean":
        return centred
    variance = centred.square().mean(-1, keepdim=True)
    return centred * torch.rsqrt(variance + _VARIANCE_EPS)
