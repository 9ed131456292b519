"""RawNet2 as a countermeasure: fixed sinc filters, residual blocks with map scaling, GRU.

Tak, Patino, Todisco, Nautsch, Evans and Larcher, "End-to-end anti-spoofing with RawNet2", ICASSP
2021 (arXiv 2011.01108).  The defaults are the configuration of the ASVspoof 2021 baseline, which
the AASIST authors compare with.

Worth knowing: as in AASIST, the published blocks compute the batch norm and activation at their
head and then convolve the input itself; these norms are kept and never computed
(`unused_parameters`), so the parameter count is the published one.  The logits are log
probabilities, so the score (log probability of bona fide) is the published one; cross-entropy
takes them as it takes any logits.

What differs from the published code, none of it in the result:
- the filters run through the FFT (`parts/fft_filter.py`): they are two thirds of the arithmetic
  as a convolution;
- log probabilities are computed from the difference of the two outputs, so that confident ones do
  not all round to 0;
- filters and GRU are float32 under autocast.

Initialisation: as torch does.  Shapes: B batch, S samples, C channels, T frames, D embedding.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.errors import ModelError
from glottis.models._interface import SpoofOutput, require_wave
from glottis.models._parity import published_count
from glottis.models._registry import register_model
from glottis.models.parts.classifier import LogOdds
from glottis.models.parts.fft_filter import fft_filter
from glottis.models.parts.precision import at_least_float32, no_autocast
from glottis.models.parts.sinc import sinc_filters

_SLOPE = 0.3  # of the leaky ReLU


class RawNet2Config(Config):
    """Options of RawNet2; the defaults are the ASVspoof 2021 baseline (17,621,410 parameters)."""

    num_filters: int = Field(20, ge=1)
    """sinc filters, side by side in mel"""
    kernel_size: int = Field(1025, ge=3, le=4097)
    """taps of a sinc filter, odd"""
    channels: tuple[int, int] = (20, 128)
    """channels of blocks 0-1 and of blocks 2-5; the paper has 128 filters and channels 128, 512"""
    gru_size: int = Field(1024, ge=1)
    """values of the GRU's state"""
    gru_layers: int = Field(3, ge=1)
    """GRUs on top of each other"""
    embedding_size: int = Field(1024, ge=1)
    """D, values before the classifier"""


class ResidualBlock(nn.Module):
    """(B, C, T) -> (B, C', T // 3): two convolutions, a shortcut, a pool, scaled maps.

    The maps become x * gate + gate, where the gate of a channel is computed from all channel means.
    """

    def __init__(self, in_channels: int, channels: int, first: bool) -> None:
        super().__init__()
        if not first:
            self.dead_norm = nn.BatchNorm1d(in_channels).requires_grad_(False)
        self.conv1 = nn.Conv1d(in_channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm1d(channels)
        self.conv2 = nn.Conv1d(channels, channels, 3, padding=1)
        self.shortcut: nn.Conv1d | None = None
        if in_channels != channels:
            self.shortcut = nn.Conv1d(in_channels, channels, 1)
        self.gate = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.leaky_relu(self.norm(self.conv1(x)), _SLOPE, inplace=True)
        y = self.conv2(y).add_(x if self.shortcut is None else self.shortcut(x))
        y = functional.max_pool1d(y, 3)
        gate = torch.sigmoid(self.gate(y.mean(dim=-1)))[..., None]
        return torch.addcmul(gate, y, gate)


@register_model(
    "rawnet2",
    RawNet2Config,
    parity=published_count("17621410", "its published code, as counted there; no paper states it"),
)
class RawNet2(nn.Module):
    """(B, S) wave at 16 kHz -> embedding (B, D) and log probabilities (B, 2); S >= 3211 samples.

    Tak et al., ICASSP 2021, section 2.  The GRU takes a step every 2187 samples (0.137 s); the
    published scores come from the first 64,600 samples (4.04 s, 29 steps).
    """

    reference = "Tak et al., ICASSP 2021"
    task = "spoof"
    input = "wave"
    default_features = None
    sample_rate = 16000
    window_seconds = 64600 / 16000
    unused_parameters = ("blocks.*.dead_norm.*",)
    heavy_blocks = ("blocks",)
    filters: Tensor

    def __init__(self, config: RawNet2Config) -> None:
        super().__init__()
        if config.kernel_size % 2 == 0:
            raise ModelError(f"kernel_size={config.kernel_size} is even", fix="use an odd number")
        narrow, wide = config.channels
        self.embedding_size = config.embedding_size
        self.min_samples = config.kernel_size - 1 + 3**7
        filters = sinc_filters(config.num_filters, config.kernel_size, self.sample_rate)
        self.register_buffer("filters", filters, persistent=False)  # (C, K)
        self.input_norm = nn.BatchNorm1d(config.num_filters)
        widths = [config.num_filters, narrow, narrow, wide, wide, wide, wide]
        self.blocks = nn.Sequential(
            *(ResidualBlock(*pair, first=i == 0) for i, pair in enumerate(pairwise(widths)))
        )
        self.output_norm = nn.BatchNorm1d(wide)
        self.gru = nn.GRU(wide, config.gru_size, config.gru_layers, batch_first=True)
        self.embedding = nn.Linear(config.gru_size, config.embedding_size)
        self.classifier = LogOdds(config.embedding_size, 2)

    def forward(self, wave: Tensor) -> SpoofOutput:
        require_wave(wave, self.min_samples)
        x = self.input_norm(self._envelopes(wave))  # (B, C, 3^6 T)
        x = self.blocks(functional.selu(x, inplace=True))
        x = functional.selu(self.output_norm(x), inplace=True)  # (B, C', T)
        with no_autocast(x):
            states, _ = self.gru(at_least_float32(x).transpose(1, 2))
            embedding = self.embedding(states[:, -1])
            return SpoofOutput(embedding, self.classifier(embedding))

    def _envelopes(self, wave: Tensor) -> Tensor:
        """(B, S) -> (B, filters, (S - K + 1) // 3): largest magnitude of 3 neighbouring samples."""
        with no_autocast(wave):
            bands = fft_filter(at_least_float32(wave), self.filters).abs_()
            end = 3 * (bands.shape[-1] // 3)
            first, second, third = (bands[..., shift:end:3] for shift in range(3))
            return torch.maximum(torch.maximum(first, second), third)
