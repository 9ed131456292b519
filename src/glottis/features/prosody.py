"""Prosodic contour: pitch, loudness, noisiness, onsets and voicing of every frame, 7 values.

The seven rows are those of a public deepfake detector (gkibria121/ai-voice-detector, feature type
8, 2025), which takes them from librosa; the estimators here are our own, run batched on any device,
and differ where said:

    0  f0         fundamental frequency in units of ``f0_unit_hz``, 0 where unvoiced
    1  f0_change  row 0 minus its value one frame before, if both are voiced, else 0 (the detector
                  also takes differences to unvoiced frames)
    2  rms        root mean square under a Hann window, relative to the clip's loudest frame, 0..1
    3  rms_change row 2 minus its value one frame before
    4  crossings  share of neighbouring samples of which one is positive and one is not, 0..1
    5  onset      rise of the log-mel spectrum in decibel since the frame before, falls counted as
                  0, averaged over bands, relative to the clip's largest, 0..1 (spectral flux)
    6  voicing    height of the peak of the normalised autocorrelation, 0..1, 0 in silence

A frame is voiced where row 6 is above ``voicing_threshold`` and the frame is not silent.  Pitch and
voicing: Boersma 1993, see `_pitch`; the detector uses pYIN, which follows pitch over frames.
Onsets: Dixon, "Onset detection revisited", DAFx 2006 (spectral flux), on mel bands in decibel.  The
clip's mean is taken away first.  Digital silence and a constant give zeros in all rows.

Shapes: B batch, S samples, T = S // hop_samples + 1 frames, M mel bands.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from glottis.features._filters import mel_filters
from glottis.features._frontend import FrontEnd, FrontEndConfig
from glottis.features._pitch import Pitch, frames_of
from glottis.features._registry import register_feature
from glottis.features._spectrum import filtered, table

ROWS = ("f0", "f0_change", "rms", "rms_change", "crossings", "onset", "voicing")
_LEAST_LEVEL = 3e-5  # one step of 16-bit audio: below it nothing is a sound
_LEAST_MEL, _MEL_RANGE_DB = 1e-10, 80.0


class ProsodyConfig(FrontEndConfig):
    """Speech from 65 to 500 Hz; the detector divides the pitch by 500 Hz."""

    window_samples: int = Field(768, ge=16)
    """Length of the analysis window: at least three periods of low_hz."""
    low_hz: float = Field(65.0, gt=0.0)
    """Lowest pitch."""
    high_hz: float = Field(500.0, gt=0.0)
    """Highest pitch."""
    f0_unit_hz: float = Field(100.0, gt=0.0)
    """The pitch is given in this unit."""
    voicing_threshold: float = Field(0.45, ge=0.0, le=1.0)
    """A frame whose autocorrelation has no higher peak is unvoiced."""
    octave_cost: float = Field(0.03, ge=0.0)
    """What a peak loses per octave of lag, so that half of the pitch does not win."""
    silence_db: float = Field(40.0, gt=0.0)
    """Frames this far below the loudest one of the clip are silent: unvoiced, voicing 0."""
    num_mels: int = Field(40, ge=2)
    """Mel bands (Slaney scale) in which onsets are looked for."""


@register_feature("prosody", ProsodyConfig)
class Prosody(FrontEnd):
    """Prosodic contour, (B, S) -> (B, 7, S // hop_samples + 1)."""

    filters: Tensor

    def __init__(self, config: ProsodyConfig) -> None:
        super().__init__(config, len(ROWS), config.window_samples)
        self.window_samples = config.window_samples
        self.pitch = Pitch(
            config.sample_rate,
            config.window_samples,
            config.low_hz,
            config.high_hz,
            config.octave_cost,
        )
        self.window_energy = float(self.pitch.window.square().sum())
        self.unit, self.threshold = config.f0_unit_hz, config.voicing_threshold
        self.silence = 10.0 ** (-config.silence_db / 20.0)
        filters = mel_filters(
            config.num_mels,
            self.pitch.fft_size,
            config.sample_rate,
            0.0,
            config.sample_rate / 2,
            scale="slaney",
            area_norm=True,
        )
        self.register_buffer("filters", table(filters), persistent=False)

    def compute(self, wave: Tensor) -> Tensor:
        """(B, S) -> (B, 7, T)."""
        wave = wave - wave.mean(1, keepdim=True)
        frames = frames_of(wave, self.window_samples, self.hop_samples)
        windowed = (frames - frames.mean(-1, keepdim=True)) * self.pitch.window
        spectrum = torch.fft.rfft(windowed, n=self.pitch.fft_size)
        power = spectrum.real.square() + spectrum.imag.square()  # (B, T, bins)

        mean_square = windowed.square().sum(-1) / self.window_energy
        audible = mean_square > _LEAST_LEVEL**2
        level = torch.where(audible, mean_square.clamp_min(_LEAST_LEVEL**2).sqrt(), 0.0)
        loudness = relative_to_largest(level)

        hz, strength = self.pitch(power)
        voicing = torch.where(audible & (loudness > self.silence), strength, 0.0)
        voiced = voicing > self.threshold
        f0 = torch.where(voiced, hz / self.unit, 0.0)
        both = voiced & functional.pad(voiced[:, :-1], (1, 0))
        rows = (
            f0,
            torch.where(both, change(f0), 0.0),
            loudness,
            change(loudness),
            self._crossings(wave),
            relative_to_largest(self._onset(power)),
            voicing,
        )
        return torch.stack(rows, dim=1)

    def _crossings(self, wave: Tensor) -> Tensor:
        """(B, S) -> (B, T)."""
        positive = wave > _LEAST_LEVEL
        crossed = (positive[:, 1:] != positive[:, :-1]).to(wave.dtype)
        frames = frames_of(functional.pad(crossed, (1, 0)), self.window_samples, self.hop_samples)
        return frames.mean(-1)

    def _onset(self, power: Tensor) -> Tensor:
        """(B, T, bins) -> (B, T)."""
        energy = filtered(self.filters, power).clamp_min(_LEAST_MEL)  # (B, M, T)
        level = 10.0 * torch.log10(energy)
        level = torch.maximum(level, level.amax(dim=(1, 2), keepdim=True) - _MEL_RANGE_DB)
        return change(level).clamp_min(0.0).mean(1)


def change(values: Tensor) -> Tensor:
    """x[t] - x[t-1] over the last axis, 0 in the first frame."""
    return functional.pad(values[..., 1:] - values[..., :-1], (1, 0))


def relative_to_largest(values: Tensor) -> Tensor:
    """(B, T) -> (B, T), each clip over its largest value; a clip of zeros stays zero."""
    return values / values.amax(1, keepdim=True).clamp_min(1e-9)
