"""Log-mel spectrogram: the definition behind the published ResNetSE and ReDimNet checkpoints.

Centred frames with reflect padding, periodic window, power spectrum, triangular mel filters
(HTK scale without area norm by default), ln(x + 1e-6), optional normalisation over time.
Shapes: B batch, S samples, F mel bands, T = S // hop_samples + 1 frames.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from glottis.features._filters import mel_filters
from glottis.features._frontend import FrontEnd
from glottis.features._registry import register_feature
from glottis.features._spectrum import LogFilterbank, SpectrumConfig


class LogMelConfig(SpectrumConfig):
    """ResNetSE: num_mels 40 or 64, normalise mean_var.  ReDimNet: 60 or 72, 20..7600 Hz, mean."""

    num_mels: int = Field(80, ge=1)
    """F, mel bands."""
    mel_scale: Literal["htk", "slaney"] = "htk"
    """2595 log10(1 + f / 700), or linear below and logarithmic above 1 kHz."""
    mel_area_norm: bool = False
    """Divide each filter by half of its width in Hz (Slaney)."""


def mel_bank(config: LogMelConfig) -> LogFilterbank:
    """The logarithmic mel filterbank that the config describes."""
    filters = mel_filters(
        config.num_mels,
        config.fft_size,
        config.sample_rate,
        config.low_hz,
        config.high_hz,
        scale=config.mel_scale,
        area_norm=config.mel_area_norm,
    )
    return LogFilterbank(config, filters)


@register_feature("logmel", LogMelConfig)
class LogMel(FrontEnd):
    """Log-mel spectrogram, (B, S) -> (B, num_mels, S // hop_samples + 1)."""

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__(config, num_features=config.num_mels)
        self.bank = mel_bank(config)

    def compute(self, wave: Tensor) -> Tensor:
        """(B, S) -> (B, F, T)."""
        features: Tensor = self.bank(wave)
        return features
