"""Mel-frequency cepstral coefficients: DCT-II of log-mel energies.

Davis and Mermelstein, "Comparison of parametric representations ...", IEEE TASSP 28, 1980.  The
defaults are those of the SE-ResNet countermeasure: 128 Slaney mel bands with area norm, Hann
window of 512 samples, decibels within 80 dB of the loudest value, orthonormal DCT.
Shapes: B batch, S samples, C coefficients, T = S // hop_samples + 1 frames.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from glottis.features._cepstra import Cepstra
from glottis.features._logarithm import Log
from glottis.features._registry import register_feature
from glottis.features.logmel import MelConfig, mel_bank


class MfccConfig(MelConfig):
    """As the SE-ResNet countermeasure uses it."""

    window_samples: int = Field(512, ge=16)
    """Length of the analysis window."""
    window: Literal["hamming", "hann"] = "hann"
    """Periodic analysis window."""
    padding: Literal["reflect", "zero"] = "zero"
    """What lies outside the clip; frame t is centred on sample t * hop_samples."""
    log_floor: float = Field(1e-10, ge=0.0)
    """Added to the energies (natural, log10, none) or the least energy (db)."""
    dynamic_range_db: float | None = Field(80.0, gt=0.0)
    """With log db: values this far below the loudest one of the clip are raised to that line."""
    num_mels: int = Field(128, ge=2)
    """Mel bands."""
    num_coefficients: int = Field(13, ge=1)
    """C, cepstral coefficients kept, the zeroth included."""
    delta_orders: int = Field(0, ge=0, le=2)
    """0: static only; 1: and deltas; 2: and double deltas."""
    mel_scale: Literal["htk", "slaney"] = "slaney"
    """2595 log10(1 + f / 700), or linear below and logarithmic above 1 kHz."""
    mel_area_norm: bool = True
    """Divide each filter by half of its width in Hz (Slaney)."""
    log: Log = "db"
    """Natural logarithm, base 10, decibel, or none."""


@register_feature("mfcc", MfccConfig)
class Mfcc(Cepstra):
    """Mel-frequency cepstra, (B, S) -> (B, num_coefficients * (delta_orders + 1), T)."""

    def __init__(self, config: MfccConfig) -> None:
        super().__init__(config, mel_bank(config), config.num_coefficients, config.delta_orders)
