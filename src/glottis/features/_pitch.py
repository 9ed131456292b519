"""Fundamental frequency by autocorrelation, corrected for the window, many frames at once.

Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio
of a sampled sound", IFA Proceedings 17, 1993: the autocorrelation of a windowed frame is divided by
that of the window, both taken relative to lag zero, which makes 1.0 of the peak of any periodic
sound.  Of the peaks within the range of lags the one wins that is highest after a cost per octave
of lag.  The path over frames that follows there is left out: a frame here depends on itself alone.

The autocorrelation is computed at every half sample (by the FFT) and a parabola through the three
values around a peak gives its place and height.
Shapes: B batch, T frames, L lags of half a sample.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from glottis.errors import ConfigError
from glottis.features._filters import Array, window_table
from glottis.features._frontend import Tables
from glottis.features._spectrum import table

_FINER = 2  # lags per sample
_PERIODS = 3  # of the lowest pitch, in a Hann window


class Pitch(Tables):
    """Power spectra of windowed frames (B, T, bins) -> pitch in Hz and its strength, both (B, T).

    The strength is the height of the winning peak: 1 for a periodic frame, 0 for one without a
    peak, about 0.2 for white noise.
    """

    window: Tensor
    correction: Tensor
    bonus: Tensor
    lags: Tensor

    def __init__(
        self,
        sample_rate: int,
        window_samples: int,
        low_hz: float,
        high_hz: float,
        octave_cost: float,
    ) -> None:
        super().__init__()
        if not low_hz < high_hz <= sample_rate / 4:
            raise ConfigError(
                f"pitch cannot lie in {low_hz:g}..{high_hz:g} Hz",
                fix=f"choose low_hz < high_hz <= {sample_rate / 4:g}",
            )
        if window_samples * low_hz < _PERIODS * sample_rate:
            raise ConfigError(
                f"a window of {window_samples} samples holds "
                f"{window_samples * low_hz / sample_rate:.2g} periods of {low_hz:g} Hz",
                why="autocorrelation under a Hann window needs three",
                fix=f"window_samples {math.ceil(_PERIODS * sample_rate / low_hz)}, "
                f"or low_hz {math.ceil(_PERIODS * sample_rate / window_samples)}",
            )
        self.sample_rate = sample_rate
        self.first = math.floor(_FINER * sample_rate / high_hz)
        self.last = math.ceil(_FINER * sample_rate / low_hz)  # both may win; one more on each side
        self.fft_size = 1 << math.ceil(math.log2(window_samples + self.last / _FINER + 1))
        window = window_table("hann", window_samples, periodic=True)
        own = np.abs(np.fft.rfft(window, self.fft_size)) ** 2
        correlation = np.fft.irfft(own, _FINER * self.fft_size)
        correction = correlation[0] / correlation[self.first - 1 : self.last + 2]
        lags = np.arange(self.first, self.last + 1)
        bonus: Array = -octave_cost * np.log2(low_hz * lags / (_FINER * sample_rate))
        self.register_buffer("window", table(window), persistent=False)
        self.register_buffer("correction", table(correction), persistent=False)
        self.register_buffer("bonus", table(bonus), persistent=False)
        self.register_buffer("lags", table(lags.astype(np.float64)), persistent=False)

    def forward(self, power: Tensor) -> tuple[Tensor, Tensor]:
        correlation = torch.fft.irfft(power, n=_FINER * self.fft_size)
        whole = correlation[..., :1].clamp_min(1e-20)
        values = correlation[..., self.first - 1 : self.last + 2] / whole * self.correction
        left, middle, right = values[..., :-2], values[..., 1:-1], values[..., 2:]
        is_peak = (middle >= left) & (middle > right)
        bend = torch.where(is_peak, left - 2.0 * middle + right, -1.0)
        shift = 0.5 * (left - right) / bend  # of the parabola's top, within half a lag
        height = middle - 0.25 * (left - right) * shift
        # a few pulses under the window are not a continuous sound: peaks may pass 1
        height = torch.where(height > 1.0, height.clamp_min(1.0).reciprocal(), height)
        chosen = torch.where(is_peak, height + self.bonus, -1e9).argmax(-1, keepdim=True)
        found = is_peak.gather(-1, chosen)[..., 0]
        strength = torch.where(found, height.gather(-1, chosen)[..., 0].clamp(0.0, 1.0), 0.0)
        lag = self.lags[chosen[..., 0]] + shift.gather(-1, chosen)[..., 0]
        hz = torch.where(found, _FINER * self.sample_rate / lag, 0.0)
        return hz, strength


def frames_of(wave: Tensor, window_samples: int, hop_samples: int) -> Tensor:
    """(B, S) -> (B, T, window): centred frames, zeros outside the clip, a view of a padded copy."""
    left = window_samples // 2
    padded = functional.pad(wave, (left, window_samples - left))
    return padded.unfold(1, window_samples, hop_samples)
