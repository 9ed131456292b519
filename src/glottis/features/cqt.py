"""Constant-Q transform: bins equally spaced in pitch, heard over equally many periods.

Brown, "Calculation of a constant Q spectral transform", JASA 89(1), 1991, equations 1 to 5.  Bin k
lies at f_k = low_hz 2^(k / b) and is heard through a window of N_k = Q sample_rate / f_k samples, Q
= window_scale / (2^(1/b) - 1); frame t is centred on sample t * hop_samples:

    X[k, t] = sum_n w(n / N_k) x[t hop + n] exp(-2 pi i f_k n / sample_rate) / sum_n w(n / N_k)

over |n| < N_k / 2, with zeros outside the clip.  The defaults are those of a public deepfake
detector (gkibria121/ai-voice-detector), which takes them from librosa: 84 bins of a semitone from
C1, hop 512, decibel below the loudest value of the clip.

How it is computed: in the time domain, exactly, octave by octave.  A window is cut into pieces of
one hop, every piece of the clip meets every piece of the kernels once (one matrix product), and the
products are added along diagonals.  There is no decimation, so that any hop is allowed, and no
frequency-domain kernel of which small values are left out (Brown and Puckette, JASA 92(5), 1992).

Shapes: B batch, S samples, F bins, T = S // hop_samples + 1 frames, P pieces of a window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from glottis.errors import ConfigError
from glottis.features._filters import Array
from glottis.features._frontend import FrontEnd, Precision, TimingConfig
from glottis.features._logarithm import Log, Logarithm, LogConfig
from glottis.features._registry import register_feature
from glottis.features._spectrum import table

_C1_HZ = 440.0 * 2.0 ** (-45.0 / 12.0)  # 32.703, 45 semitones below the A of 440 Hz


class CqtConfig(LogConfig, TimingConfig):
    """84 semitones from C1 to B7 (3951 Hz), as in the SE-ResNet countermeasure's "CQT"."""

    hop_samples: int = Field(512, ge=1)
    """Samples from one frame to the next."""
    num_bins: int = Field(84, ge=1)
    """F, bins."""
    bins_per_octave: int = Field(12, ge=1)
    """Of which so many lie in an octave."""
    low_hz: float = Field(_C1_HZ, gt=0.0)
    """Frequency of the first bin."""
    window: Literal["hamming", "hann"] = "hann"
    """Shape of the windows."""
    window_scale: float = Field(1.0, gt=0.0)
    """Length of the windows as a multiple of Brown's; smaller = finer in time, coarser in pitch."""
    scale: Literal["tone", "noise"] = "noise"
    """What has the same level in all bins: a tone (Brown), or white noise: values times the root
    of the window's length (librosa)."""
    log: Log = "db"
    """Natural logarithm, base 10, decibel, or none, of the squared magnitudes."""
    log_floor: float = Field(1e-10, ge=0.0)
    """Added to the energies (natural, log10, none) or the least energy (db)."""
    dynamic_range_db: float | None = Field(80.0, gt=0.0)
    """With log db: values this far below the loudest one of the clip are raised to that line."""
    db_reference: Literal["one", "clip_maximum"] = "clip_maximum"
    """With log db: what 0 dB is."""
    precision: Precision = "single"
    """Of samples, kernels and sums; double costs about twice as much (not on mps)."""


@dataclass(frozen=True)
class Octave:
    """Neighbouring bins, whose windows span ``before`` pieces before a frame and ``after`` more."""

    before: int
    after: int
    kernels: Array  # (before + after, hop, 2 F): real parts and imaginary parts


@register_feature("cqt", CqtConfig)
class Cqt(FrontEnd):
    """Constant-Q transform, (B, S) -> (B, num_bins, S // hop_samples + 1)."""

    kernels: Tensor

    def __init__(self, config: CqtConfig) -> None:
        # a clip shorter than the longest window is heard with zeros around it
        super().__init__(config, config.num_bins, min_samples=config.hop_samples)
        self.logarithm = Logarithm(config)
        octaves = list(octaves_of(config))
        self.before = max(octave.before for octave in octaves)
        self.after = max(octave.after for octave in octaves)
        self.shapes = [(o.before, o.after, o.kernels.shape[2]) for o in octaves]
        columns = [o.kernels.transpose(1, 0, 2).reshape(self.hop_samples, -1) for o in octaves]
        flat = np.pad(np.concatenate(columns, axis=1), ((0, 1), (0, 0)))  # see `compute`
        self.register_buffer("kernels", table(flat, config.precision), persistent=False)

    def compute(self, wave: Tensor) -> Tensor:
        """(B, S) -> (B, F, T)."""
        hop = self.hop_samples
        padding = (self.before * hop, self.after * hop + 1)
        padded = functional.pad(wave.to(self.kernels.dtype), padding)
        # (B, T - 1 + P, hop + 1): one sample more than a hop, against a row of zeros.  Without the
        # overlap the view is contiguous for some lengths, and an exported graph fixes which
        pieces = padded.unfold(1, hop + 1, hop).clone(memory_format=torch.contiguous_format)
        products = torch.matmul(pieces, self.kernels)  # all pieces with all pieces of all kernels
        energies, column = [], 0
        for before, after, width in self.shapes:
            count = before + after
            rows = slice(self.before - before, after - self.after or None)
            columns = slice(column, column + count * width)
            energies.append(_energies(products[:, rows, columns], count, width))
            column += count * width
        return self.logarithm(torch.cat(energies, dim=2).transpose(1, 2).contiguous())


def _energies(products: Tensor, count: int, width: int) -> Tensor:
    """(B, T - 1 + P, P * 2F) products of an octave -> (B, T, F) squared magnitudes."""
    # frame t is the sum over p of the product of row t + p with piece p of the kernel
    by_piece = products.unfold(2, width, width)  # (B, T - 1 + P, P, 2F), a view, as are the next
    along = by_piece.unfold(1, count, 1).diagonal(dim1=2, dim2=4)  # (B, T, 2F, P)
    parts: Tensor = along.sum(-1)
    power = parts[..., : width // 2].square() + parts[..., width // 2 :].square()
    return power.to(torch.float32)


def octaves_of(config: CqtConfig) -> Iterator[Octave]:
    """The bins, octave by octave: their windows differ in length by a factor of two at most."""
    hop, all_hz, all_lengths = config.hop_samples, bin_frequencies(config), window_lengths(config)
    for first in range(0, config.num_bins, config.bins_per_octave):
        part = slice(first, first + config.bins_per_octave)
        hz, lengths = all_hz[part], all_lengths[part]
        half = math.ceil(lengths.max() / 2) - 1  # of the longest window, without its centre
        before, after = math.ceil(half / hop), half // hop + 1
        n = np.arange(-before * hop, after * hop)
        kernels = time_kernels(config, hz, lengths, n)
        yield Octave(before, after, kernels.reshape(before + after, hop, -1))


def bin_frequencies(config: CqtConfig) -> Array:
    """(F,) in Hz."""
    octaves = np.arange(config.num_bins) / config.bins_per_octave
    hz: Array = config.low_hz * 2.0**octaves
    top = hz[-1] * (1.0 + 1.0 / quality(config))
    if top > config.sample_rate / 2:
        raise ConfigError(
            f"the last of {config.num_bins} bins reaches from {hz[-1]:.0f} to {top:.0f} Hz, above "
            f"half of the sample rate, {config.sample_rate / 2:g} Hz",
            fix="fewer num_bins, or a lower low_hz",
        )
    return hz


def quality(config: CqtConfig) -> float:
    """Q: the periods of a bin's frequency in its window."""
    return float(config.window_scale / (2.0 ** (1.0 / config.bins_per_octave) - 1.0))


def window_lengths(config: CqtConfig) -> Array:
    """(F,) N_k in samples, not rounded."""
    return quality(config) * config.sample_rate / bin_frequencies(config)


def time_kernels(config: CqtConfig, hz: Array, lengths: Array, n: Array) -> Array:
    """(N, 2F): real parts and imaginary parts at the samples ``n`` (N,) around the centre."""
    n = n[:, None]
    edge = 0.5 if config.window == "hann" else 0.54
    shape = edge + (1.0 - edge) * np.cos(2.0 * np.pi * n / lengths)
    window = np.where(np.abs(n) < lengths / 2, shape, 0.0)
    window /= window.sum(axis=0)
    if config.scale == "noise":
        window *= np.sqrt(lengths)
    phase = 2.0 * np.pi * hz * n / config.sample_rate
    return np.concatenate([window * np.cos(phase), -window * np.sin(phase)], axis=1)
