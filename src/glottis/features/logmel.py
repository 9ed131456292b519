"""Log-mel spectrogram: the definition behind the published ResNetSE and ReDimNet checkpoints.

Centred frames with reflect padding, periodic window, power spectrum, triangular mel filters
(HTK scale without area norm by default), ln(x + 1e-6), optional normalisation over time.
Shapes: B batch, S samples, F mel bands, T = (S + tail_samples) // hop_samples + 1 frames.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from glottis.features._filters import mel_filters
from glottis.features._frontend import FrontEnd
from glottis.features._registry import register_feature
from glottis.features._spectrum import LogFilterbank, SpectrumConfig


class MelConfig(SpectrumConfig):
    """A mel filterbank on the power spectrum."""

    num_mels: int = Field(80, ge=1)
    """F, mel bands."""
    mel_scale: Literal["htk", "slaney"] = "htk"
    """2595 log10(1 + f / 700), or linear below and logarithmic above 1 kHz."""
    mel_area_norm: bool = False
    """Divide each filter by half of its width in Hz (Slaney)."""
    mel_slopes: Literal["corners", "symmetric"] = "corners"
    """Where a filter ends: at the peak of the next one, or (SpeechBrain) as far above its own peak
    as it begins below it."""


class LogMelConfig(MelConfig):
    """ResNetSE: num_mels 40 or 64, normalise mean_var.  ReDimNet: 60 or 72, 20..7600 Hz, mean."""

    raise_to_dbfs: float | None = Field(None, le=0.0)
    """Clips whose RMS level is below this are amplified to it, before anything else (GE2E: -30)."""
    tail_samples: int = Field(0, ge=0)
    """Zeros put behind a clip; the frames in which its last samples fade out are then heard."""


def mel_bank(config: MelConfig) -> LogFilterbank:
    """The logarithmic mel filterbank that the config describes."""
    filters = mel_filters(
        config.num_mels,
        config.fft_size,
        config.sample_rate,
        config.low_hz,
        config.high_hz,
        scale=config.mel_scale,
        area_norm=config.mel_area_norm,
        symmetric=config.mel_slopes == "symmetric",
    )
    return LogFilterbank(config, filters)


@register_feature("logmel", LogMelConfig)
class LogMel(FrontEnd):
    """Log-mel spectrogram, (B, S) -> (B, num_mels, (S + tail_samples) // hop_samples + 1)."""

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__(config, config.num_mels, config.window_samples)
        self.bank = mel_bank(config)
        self.raise_to_dbfs, self.tail = config.raise_to_dbfs, config.tail_samples

    def num_frames(self, num_samples: int) -> int:
        """(S + tail_samples) // hop_samples + 1."""
        return super().num_frames(num_samples + self.tail)

    def compute(self, wave: Tensor) -> Tensor:
        """(B, S) -> (B, F, T)."""
        if self.raise_to_dbfs is not None:
            wave = raised(wave, self.raise_to_dbfs)
        if self.tail:
            wave = functional.pad(wave, (0, self.tail))
        features: Tensor = self.bank(wave)
        return features


def raised(wave: Tensor, dbfs: float) -> Tensor:
    """Each clip of (B, S) at an RMS level of ``dbfs`` or more; silence stays silent."""
    level: Tensor = torch.linalg.vector_norm(wave, dim=1, keepdim=True) / wave.shape[1] ** 0.5
    gain: Tensor = 10.0 ** (dbfs / 20.0) / level.clamp_min(1e-30)
    return wave * gain.clamp_min(1.0)
