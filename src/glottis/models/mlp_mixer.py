"""MLP-Mixer for speakers: grouped and channel perceptrons on every frame, of mel or of the wave.

After Tolstikhin et al., "MLP-Mixer: an all-MLP architecture for vision", NeurIPS 2021; the student
of a public trainer's distillation experiments (dimuthuanuraj/voxceleb_trainer, "MLPMixerSpeaker"
and "MLPMixerSpeaker_RawWaveform", 2025).  Checkpoints of its published code load under their
original names and give its outputs.

Worth knowing: what that code calls token mixing mixes no frames: it is a perceptron within groups
of channels, at each frame alone.  Only the depthwise convolution of a block sees the neighbours, so
a block widens the view by one frame on each side.  The two networks order the parts of a block
differently.  The raw one takes the outputs of its learned filters as they are: no logarithm.

What differs from the published code, none of it in the result: frames stay in the order (B, T, C)
and the grouped 1x1 convolutions are batched matrix products; pooling and embedding run in float32
under autocast.

Initialisation: sinc filters as `LearnedSinc` says, all else as torch does for linear layers and
convolutions.  Shapes: B batch, S samples, F features, T frames, C channels, D embedding, G groups.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.errors import ConfigError
from glottis.features import normalise_over_time
from glottis.models._formats import renamer
from glottis.models._interface import require_features, require_wave
from glottis.models._parity import golden
from glottis.models._registry import register_model
from glottis.models.parts.learned_sinc import LearnedSinc
from glottis.models.parts.pooling import ChannelAttention, ChannelStatisticsPooling
from glottis.models.parts.precision import no_autocast

_RAW_FILTERS = 80


class MlpMixerConfig(Config):
    """MLP-Mixer on log-mel with 8 blocks of 256 channels (7,844,864 parameters)."""

    embedding_size: int = Field(512, ge=1)
    """D, values of an embedding"""
    channels: int = Field(256, ge=1)
    """C, values of a frame inside the network"""
    num_blocks: int = Field(8, ge=1)
    """blocks"""
    expansion: int = Field(4, ge=1)
    """hidden units of a perceptron over its inputs"""
    groups: int = Field(4, ge=1)
    """groups of channels in the grouped perceptron; a divisor of ``channels``"""
    dropout: float = Field(0.1, ge=0, lt=1)
    """after both layers of each perceptron"""


class MlpMixerSmallConfig(MlpMixerConfig):
    """MLP-Mixer on log-mel with 6 blocks of 192 channels (2,664,576 parameters)."""

    channels: int = Field(192, ge=1)
    """C, values of a frame inside the network"""
    num_blocks: int = Field(6, ge=1)
    """blocks"""
    expansion: int = Field(3, ge=1)
    """hidden units of a perceptron over its inputs"""


class MlpMixerRawConfig(MlpMixerConfig):
    """MLP-Mixer on the waveform through learned sinc filters (7,843,936 parameters)."""


class GroupedLinear(nn.Module):
    """(..., C) -> (..., C'): each of G blocks of inputs has its own block of outputs."""

    def __init__(self, in_size: int, out_size: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(out_size, in_size // groups))
        self.bias = nn.Parameter(torch.empty(out_size))
        bound = 1 / math.sqrt(in_size // groups)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        blocks = x.reshape(-1, self.groups, x.shape[-1] // self.groups).transpose(0, 1)
        weight = self.weight.unflatten(0, (self.groups, -1)).transpose(1, 2)
        bias = self.bias.unflatten(0, (self.groups, 1, -1))
        y = torch.baddbmm(bias, blocks, weight)  # (G, B T, C' / G)
        return y.transpose(0, 1).reshape(*x.shape[:-1], -1)


class GroupedPerceptron(nn.Module):
    """Two grouped layers with GELU between them: (B, T, C) -> same."""

    def __init__(self, config: MlpMixerConfig) -> None:
        super().__init__()
        hidden = config.channels * config.expansion
        self.first = GroupedLinear(config.channels, hidden, config.groups)
        self.second = GroupedLinear(hidden, config.channels, config.groups)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.second(self.dropout(functional.gelu(self.first(x)))))


class ChannelPerceptron(nn.Module):
    """Linear, larger of two halves (max-feature-map), GELU, linear: (B, T, C) -> same."""

    def __init__(self, config: MlpMixerConfig) -> None:
        super().__init__()
        hidden = config.channels * config.expansion
        self.first = nn.Linear(config.channels, 2 * hidden)
        self.second = nn.Linear(hidden, config.channels)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.first(x).chunk(2, dim=-1)
        return self.dropout(self.second(self.dropout(functional.gelu(torch.maximum(left, right)))))


class Neighbours(nn.Module):
    """x + norm(depthwise convolution of x over three frames): (B, T, C) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x.transpose(1, 2)))
        return x + y.transpose(1, 2)


class Block(nn.Module):
    """Neighbouring frames, grouped perceptron, channel perceptron: (B, T, C) -> same.

    conv_first: the convolution acts on the block's input (raw), not behind the first norm (mel).
    """

    def __init__(self, config: MlpMixerConfig, *, conv_first: bool) -> None:
        super().__init__()
        self.conv_first = conv_first
        self.neighbours = Neighbours(config.channels)
        self.norm1 = nn.LayerNorm(config.channels)
        self.grouped = GroupedPerceptron(config)
        self.norm2 = nn.LayerNorm(config.channels)
        self.channel = ChannelPerceptron(config)

    def forward(self, x: Tensor) -> Tensor:
        if self.conv_first:
            x = self.neighbours(x)
            x = x + self.grouped(self.norm1(x))
        else:
            x = x + self.grouped(self.neighbours(self.norm1(x)))
        return x + self.channel(self.norm2(x))


class MixerTrunk(nn.Module):
    """What both networks share: projection, blocks, pooling, embedding; (B, F, T) -> (B, D)."""

    def __init__(
        self,
        config: MlpMixerConfig,
        num_features: int,
        attention: Callable[[int], ChannelAttention],
        *,
        conv_first: bool,
    ) -> None:
        super().__init__()
        channels, size = config.channels, config.embedding_size
        if channels % config.groups:
            raise ConfigError(
                f"groups={config.groups} does not divide channels={channels}",
                fix="choose a divisor",
            )
        self.embedding_size = size
        self.projection = nn.Conv1d(num_features, channels, 3, padding=1, bias=False)
        self.projection_norm = nn.BatchNorm1d(channels)
        blocks = (Block(config, conv_first=conv_first) for _ in range(config.num_blocks))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(channels)
        self.pooling = ChannelStatisticsPooling(channels, attention(channels), min_variance=1e-5)
        self.embedding = nn.Linear(self.pooling.output_size, size)
        self.embedding_norm = nn.BatchNorm1d(size)

    def embed(self, features: Tensor) -> Tensor:
        """(B, F, T) -> (B, D)."""
        x = functional.relu(self.projection_norm(self.projection(features)), inplace=True)
        x = x.transpose(1, 2).contiguous()  # (B, T, C)
        for block in self.blocks:
            x = block(x)
        with no_autocast(x):
            x = self.norm(x.to(self.norm.weight.dtype))
            return self.embedding_norm(self.embedding(self.pooling(x.transpose(1, 2))))


_ORIGINAL_NAMES = [
    (r"^projection\.", r"frontend.0."),
    (r"^projection_norm\.", r"frontend.1."),
    (r"^blocks\.", r"mixer_blocks."),
    (r"\.neighbours\.conv\.", r".id_conv.conv."),
    (r"\.neighbours\.norm\.", r".id_conv.bn."),
    (r"\.grouped\.", r".token_mixing."),
    (r"\.channel\.", r".channel_mixing."),
    (r"\.first\.", r".fc1."),
    (r"\.second\.", r".fc2."),
    (r"^norm\.", r"encoder_norm."),
    (r"^embedding\.", r"fc."),
    (r"^embedding_norm\.", r"bn."),
    (r"^(pooling\.attention)\.reduce\.", r"\1.0."),
    (r"^(pooling\.attention)\.norm\.", r"\1.2."),
]
_RAW_NAMES = [
    (r"^filters\.(low|band)_hz$", r"sincnet.\1_hz_"),
    (r"^reductions\.0\.", r"feature_extractor."),
    (r"^reductions\.1\.0\.", r"feature_extractor.4."),
    (r"^reductions\.1\.1\.", r"feature_extractor.5."),
]


@register_model("mlp_mixer_small", MlpMixerSmallConfig, parity=golden("dim_mlp_mixer_cfg"))
@register_model("mlp_mixer", MlpMixerConfig, parity=golden("dim_mlp_mixer_default"))
class MlpMixer(MixerTrunk):
    """(B, F, T) normalised log-mel features -> (B, D) embeddings, not normalised; T >= 1 frame.

    After Tolstikhin et al., NeurIPS 2021.
    """

    reference = "dimuthuanuraj/voxceleb_trainer, 2025, after Tolstikhin et al., NeurIPS 2021"
    task = "speaker"
    input = "features"
    min_frames = 1
    window_seconds = None
    unused_parameters = ()
    heavy_blocks = ("blocks",)
    default_features: dict[str, Any] = {  # noqa: RUF012
        "name": "logmel",
        "num_mels": 80,
        "fft_size": 512,
        "window_samples": 400,
        "hop_samples": 160,
        "window": "hamming",
        "low_hz": 0.0,
        "high_hz": 8000.0,
        "log_floor": 1e-6,
        "normalise": "mean_var",
    }

    def __init__(self, config: MlpMixerConfig, num_features: int) -> None:
        super().__init__(
            config, num_features, lambda size: ChannelAttention(size, size), conv_first=False
        )
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        require_features(features, self.num_features, self.min_frames)
        return self.embed(features)

    original_name = staticmethod(renamer((*_ORIGINAL_NAMES, (r"\.expand\.", r".2."))))

    original_prefixes = ("module.", "__S__.")
    original_extras = ("torchfb.*", "__L__.*")

    @staticmethod
    def original_options(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options and front-end options that the shapes in a checkpoint imply."""
        features: dict[str, Any] = {}
        if "torchfb.mel_scale.fb" in state:
            features["num_mels"] = state["torchfb.mel_scale.fb"].shape[1]
        return _options(state), features


class Reduction(nn.Sequential):
    """(B, F, T) -> (B, F, T // 3): convolution over 5 frames, norm, leaky ReLU, largest of 3."""

    def __init__(self, size: int) -> None:
        super().__init__(
            nn.Conv1d(size, size, 5, padding=2, bias=False),
            nn.BatchNorm1d(size),
            nn.LeakyReLU(0.2, inplace=True),
            nn.MaxPool1d(3),
        )


@register_model("mlp_mixer_raw", MlpMixerRawConfig, parity=golden("dim_mlp_mixer_raw"))
class MlpMixerRaw(MixerTrunk):
    """(B, S) wave at 16 kHz -> (B, D) embeddings, not normalised; S >= 1281 samples.

    After Tolstikhin et al., NeurIPS 2021.  A frame inside covers 9 filter frames of 10 ms.
    """

    reference = "dimuthuanuraj/voxceleb_trainer, 2025, after Tolstikhin et al., NeurIPS 2021"
    task = "speaker"
    input = "wave"
    default_features = None
    sample_rate = 16000
    window_seconds = None
    unused_parameters = ()
    heavy_blocks = ("blocks",)
    min_samples = 8 * 160 + 1  # 9 filter frames

    def __init__(self, config: MlpMixerRawConfig) -> None:
        super().__init__(
            config,
            _RAW_FILTERS,
            lambda size: ChannelAttention(size, 128, "relu_norm"),
            conv_first=True,
        )
        self.filters = LearnedSinc(
            _RAW_FILTERS,
            251,
            stride=160,
            sample_rate=self.sample_rate,
            padding=125,
            window="sincnet",
        )
        self.reductions = nn.Sequential(Reduction(_RAW_FILTERS), Reduction(_RAW_FILTERS))

    def forward(self, wave: Tensor) -> Tensor:
        require_wave(wave, self.min_samples)
        with no_autocast(wave):
            x = normalise_over_time(self.filters(wave), "mean_var")  # (B, 80, T)
        return self.embed(self.reductions(x))

    original_name = staticmethod(renamer((*_RAW_NAMES, *_ORIGINAL_NAMES, (r"\.expand\.", r".3."))))

    original_prefixes = ("module.", "__S__.")
    original_extras = ("__L__.*",)

    @staticmethod
    def original_options(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options that the shapes in a checkpoint imply."""
        return _options(state), {}


def _options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    first, last = "mixer_blocks.0.token_mixing.fc1.weight", "fc.weight"
    if first not in state or last not in state:
        return {}
    blocks = {int(m[1]) for m in (re.match(r"mixer_blocks\.(\d+)\.", n) for n in state) if m}
    hidden, per_group = state[first].shape[:2]
    channels = state["frontend.0.weight"].shape[0]
    return {
        "embedding_size": state[last].shape[0],
        "channels": channels,
        "num_blocks": len(blocks),
        "expansion": hidden // channels,
        "groups": channels // per_group,
    }
