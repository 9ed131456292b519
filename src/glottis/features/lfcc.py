"""Linear-frequency cepstral coefficients, the front end of the ASVspoof baselines.

Sahidullah, Kinnunen, Hanilci, "A comparison of features for synthetic speech detection",
Interspeech 2015; parameters of the ASVspoof 2021 LFCC-LCNN baseline: 20 ms Hamming window, 10 ms
hop, 512-point FFT, 20 linear filters, log10, orthonormal DCT-II, deltas and double deltas.  With
``energy`` the log energy takes the place of c0, as in Wang and Yamagishi, Interspeech 2021.
Difference: pre-emphasis reflects one sample at the start instead of leaving x[0] as it is.
Shapes: B batch, S samples, C coefficients, T = S // hop_samples + 1 frames.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from glottis.features._cepstra import Cepstra
from glottis.features._filters import cosine_matrix, linear_filters
from glottis.features._logarithm import Log
from glottis.features._registry import register_feature
from glottis.features._spectrum import LogFilterbank, SpectrumConfig, table


class LfccConfig(SpectrumConfig):
    """SE-ResNet: 13 coefficients, window 512 hann, zero padding, natural log, 1e-10, no deltas."""

    window_samples: int = Field(320, ge=16)
    """Length of the analysis window."""
    padding: Literal["reflect", "zero"] = "zero"
    """What lies outside the clip; frame t is centred on sample t * hop_samples."""
    pre_emphasis: float = Field(0.97, ge=0.0, lt=1.0)
    """c in x[t] - c x[t-1] over the whole clip, x[-1] = x[1]; 0 = off."""
    log_floor: float = Field(1.1920929e-07, ge=0.0)
    """Added to the energies (natural, log10, none) or the least energy (db)."""
    num_filters: int = Field(20, ge=2)
    """Triangular filters, equally spaced from low_hz to high_hz."""
    num_coefficients: int = Field(20, ge=1)
    """C, cepstral coefficients kept, the zeroth included."""
    delta_orders: int = Field(2, ge=0, le=2)
    """0: static only; 1: and deltas; 2: and double deltas."""
    log: Log = "log10"
    """Natural logarithm, base 10, decibel, or none."""
    energy: bool = False
    """In place of the zeroth coefficient: the log of the frame's power over fft_size."""


@register_feature("lfcc", LfccConfig)
class Lfcc(Cepstra):
    """Linear-frequency cepstra, (B, S) -> (B, num_coefficients * (delta_orders + 1), T)."""

    def __init__(self, config: LfccConfig) -> None:
        filters = linear_filters(
            config.num_filters, config.fft_size, config.sample_rate, config.low_hz, config.high_hz
        )
        if config.energy:  # one more filter, which takes all of the spectrum
            everything = np.full((1, filters.shape[1]), 1.0 / config.fft_size)
            filters = np.concatenate([filters, everything])
        bank = LogFilterbank(config, filters)
        super().__init__(config, bank, config.num_coefficients, config.delta_orders)
        if config.energy:
            cosines = cosine_matrix(config.num_coefficients, config.num_filters)
            cosines = np.pad(cosines, ((0, 0), (0, 1)))
            cosines[0] = np.eye(config.num_filters + 1)[-1]
            self.cosines = table(cosines)
