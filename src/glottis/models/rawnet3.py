"""RawNet3: learned sinc filters on the waveform, three Res2Net blocks, attentive statistics.

Jung, Kim, Heo, Lee and Chung, "Pushing the limits of raw waveform speaker recognition", Interspeech
2022 (arXiv 2203.08488), section 2.  Weights of the public trainer (clovaai/voxceleb_trainer, MIT)
load under their original names and give its outputs.

Worth knowing: ReLU comes before every batch norm; the feature-map scaling computes its gate before
the shift; two batch norms at either end are in the published state dict and are never used
(`unused_parameters`).  Filters, their logarithm and the pooling are float32 under autocast.

What differs from the published code, none of it in the result: a filter whose band has drifted up
to half the sample rate gives nothing, where its division of zero by zero gives NaN.

Initialisation: sinc edges equally spaced in mel (`parts/learned_sinc.py`), shifts 1, the rest as
torch does.  Shapes: B batch, S samples, T frames, C channels, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.models._formats import renamer
from glottis.models._interface import require_wave
from glottis.models._parity import golden
from glottis.models._registry import register_model
from glottis.models.parts.learned_sinc import LearnedSinc
from glottis.models.parts.pooling import ChannelAttention, ChannelStatisticsPooling
from glottis.models.parts.precision import at_least_float32, no_autocast
from glottis.models.resnet_se import ResNetSE34L

_TAPS = 251
_POOLS = (5, 3)  # of the first two blocks; frames of the last block cover 15 of the filterbank


class RawNet3Config(Config):
    """Options of RawNet3; the defaults are the published model (16,280,322 parameters)."""

    embedding_size: int = Field(256, ge=1)
    """D, values of an embedding"""
    channels: int = Field(1024, ge=16, multiple_of=16)
    """C of the blocks; before the pooling there are 1.5 C"""
    sinc_stride: int = Field(10, ge=1)
    """samples from one frame of the filterbank to the next"""


class MapScaling(nn.Module):
    """(x + shift) * gate: (B, C, T) -> (B, C, T); gate = sigmoid(W mean(x) + b)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.ones(channels, 1))
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.linear(x.mean(dim=-1)))
        return (x + self.shift.to(x.dtype)) * gate[..., None]  # maps stay bfloat16 under autocast


class Res2Block(nn.Module):
    """(B, C, T) -> (B, C', T // pool): eight groups, each convolved after the one before is added.

    Gao et al., "Res2Net", TPAMI 2021; the last group passes unchanged.
    """

    def __init__(
        self, in_channels: int, channels: int, dilation: int, pool: int | None, scale: int = 8
    ) -> None:
        super().__init__()
        width = channels // scale
        self.conv_in = nn.Conv1d(in_channels, channels, 1)
        self.norm_in = nn.BatchNorm1d(channels)
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
            for _ in range(scale - 1)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(scale - 1))
        self.conv_out = nn.Conv1d(channels, channels, 1)
        self.norm_out = nn.BatchNorm1d(channels)
        self.shortcut: nn.Conv1d | None = None
        if in_channels != channels:
            self.shortcut = nn.Conv1d(in_channels, channels, 1, bias=False)
        self.scaling = MapScaling(channels)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_in(functional.relu(self.conv_in(x), inplace=True))
        groups = list(y.chunk(len(self.convs) + 1, dim=1))
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            group = groups[i] if i == 0 else groups[i] + groups[i - 1]
            groups[i] = norm(functional.relu(conv(group), inplace=True))
        y = self.norm_out(functional.relu(self.conv_out(torch.cat(groups, dim=1)), inplace=True))
        y = y.add_(x if self.shortcut is None else self.shortcut(x))
        if self.pool is not None:
            y = functional.max_pool1d(y, self.pool)
        return self.scaling(y)


_original_name = renamer(
    [
        (r"^wave_norm\.", r"preprocess.1."),
        (r"^filterbank\.(\w+)$", r"conv1.filterbank.\1_"),
        (r"^dead_norm_in\.", r"bn1."),
        (r"^dead_norm_out\.", r"bn6."),
        (r"\.conv_in\.", r".conv1."),
        (r"\.norm_in\.", r".bn1."),
        (r"\.norms\.", r".bns."),
        (r"\.conv_out\.", r".conv3."),
        (r"\.norm_out\.", r".bn3."),
        (r"\.shortcut\.", r".residual.0."),
        (r"\.scaling\.shift$", r".afms.alpha"),
        (r"\.scaling\.linear\.", r".afms.fc."),
        (r"^joint\.", r"layer4."),
        (r"^pooling\.attention\.reduce\.", r"attention.0."),
        (r"^pooling\.attention\.norm\.", r"attention.2."),
        (r"^pooling\.attention\.expand\.", r"attention.3."),
        (r"^pooled_norm\.", r"bn5."),
        (r"^embedding\.", r"fc6."),
        (r"^blocks\.(\d)\.", lambda found: f"layer{int(found[1]) + 1}."),
    ]
)


@register_model("rawnet3", RawNet3Config, parity=golden("vox_RawNet3_ECA"))
class RawNet3(nn.Module):
    """(B, S) wave at 16 kHz -> (B, D) embeddings, not normalised; S >= 391 samples.

    Jung et al., Interspeech 2022, section 2.  A frame of the pooling comes every 15 frames of the
    filterbank, or 9.4 ms.
    """

    reference = "Jung et al., Interspeech 2022"
    task = "speaker"
    input = "wave"
    default_features = None
    sample_rate = 16000
    window_seconds = None
    unused_parameters = ("dead_norm_in.*", "dead_norm_out.*")
    heavy_blocks = ("blocks",)

    def __init__(self, config: RawNet3Config) -> None:
        super().__init__()
        channels, stride = config.channels, config.sinc_stride
        self.embedding_size = config.embedding_size
        self.min_samples = _TAPS + (_POOLS[0] * _POOLS[1] - 1) * stride
        self.wave_norm = nn.InstanceNorm1d(1, eps=1e-4, affine=True)
        self.filterbank = LearnedSinc(128, _TAPS, stride, sample_rate=self.sample_rate, sine=True)
        filters = self.filterbank.num_channels
        self.blocks = nn.ModuleList(
            [
                Res2Block(filters, channels, dilation=2, pool=_POOLS[0]),
                Res2Block(channels, channels, dilation=3, pool=_POOLS[1]),
                Res2Block(channels, channels, dilation=4, pool=None),
            ]
        )
        wide = channels * 3 // 2
        self.joint = nn.Conv1d(3 * channels, wide, 1)
        attention = ChannelAttention(
            wide,
            activation="relu_norm",
            context=True,
            min_variance=1e-4,
            max_variance=1e4,
            add_variance=False,
        )
        self.pooling = ChannelStatisticsPooling(
            wide, attention, min_variance=1e-4, max_variance=1e4
        )
        self.pooled_norm = nn.BatchNorm1d(2 * wide)
        self.embedding = nn.Linear(2 * wide, config.embedding_size)
        # only for the published state dict
        self.dead_norm_in = nn.BatchNorm1d(filters).requires_grad_(False)
        self.dead_norm_out = nn.BatchNorm1d(config.embedding_size).requires_grad_(False)

    def forward(self, wave: Tensor) -> Tensor:
        require_wave(wave, self.min_samples)
        x = self._filtered(wave)  # (B, 256, T)
        first = self.blocks[0](x)
        second = self.blocks[1](first)
        pooled = functional.max_pool1d(first, _POOLS[1])
        third = self.blocks[2](pooled + second)
        x = functional.relu(self.joint(torch.cat([pooled, second, third], dim=1)), inplace=True)
        with no_autocast(x):
            return self.embedding(self.pooled_norm(self.pooling(x)))

    def _filtered(self, wave: Tensor) -> Tensor:
        """Log magnitudes of the filter outputs, minus their mean over time."""
        with no_autocast(wave):
            wave = at_least_float32(wave)
            # rounded as published: the logarithm of a filter output near zero shows every bit
            wave = wave - 0.97 * torch.cat([wave[:, 1:2], wave[:, :-1]], dim=1)
            x = self.filterbank(self.wave_norm(wave[:, None])[:, 0])
            x = torch.log(x.abs().add_(1e-6))
            return x.sub_(x.mean(dim=-1, keepdim=True))

    original_name = staticmethod(_original_name)

    original_prefixes = ResNetSE34L.original_prefixes
    original_extras = (
        "preprocess.0.flipped_filter",
        "conv1.filterbank.window_",
        "conv1.filterbank.n_",
        "__L__.*",
    )
    """not part of the network: tables of the front end, the loss and its class weights"""

    @staticmethod
    def original_options(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options that the shapes in a checkpoint imply; they do not tell ``sinc_stride``."""
        options: dict[str, Any] = {}
        if "fc6.weight" in state and "layer1.conv1.weight" in state:
            options["embedding_size"] = state["fc6.weight"].shape[0]
            options["channels"] = state["layer1.conv1.weight"].shape[0]
        return options, {}
