"""ECAPA-TDNN: Res2Net blocks with squeeze-excitation over frames, all of them pooled together.

Desplanques, Thienpondt and Demuynck, "ECAPA-TDNN: emphasized channel attention, propagation and
aggregation in TDNN based speaker verification", Interspeech 2020 (arXiv 2005.07143).  Table 1
there: 6.2 million parameters with 512 channels, 14.7 million with 1024; the defaults here have
6,190,720 and 14,657,088.  Weights of wespeaker (Apache-2.0) and SpeechBrain (Apache-2.0) load under
their original names and give their outputs.

The two implementations differ, and a network is either (``variant``):

    wespeaker     zeros around the clip; of the 8 channel groups of a block the last is passed on;
                  1536 aggregated channels, not normalised; tanh in the attention
    speechbrain   the clip mirrored at its ends; the first group is passed on; 3072 aggregated
                  channels, normalised; ReLU, batch norm and tanh in the attention

In both ReLU comes before batch norm.  What differs from the published code, none of it in the
result: linear layers where it has convolutions over a single frame; the share of the global context
in the attention is computed once per utterance, not at every frame.

Initialisation: as torch does.  Shapes: B batch, F features, T frames, C channels, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.errors import ModelError
from glottis.models._formats import Format, Implied, renamer
from glottis.models._interface import require_features
from glottis.models._parity import golden
from glottis.models._registry import register_model
from glottis.models.parts.pooling import ChannelAttention, ChannelStatisticsPooling
from glottis.models.parts.precision import no_autocast
from glottis.models.parts.squeeze import SqueezeExcitation

_DILATIONS = (2, 3, 4)


class Ecapa512Config(Config):
    """ECAPA-TDNN with 512 channels (6,190,720 parameters)."""

    channels: int = Field(512, ge=8)
    """C, channels of the frame layers; a multiple of ``groups``"""
    aggregated_channels: int = Field(1536, ge=1)
    """channels that are pooled, computed from the three blocks together"""
    embedding_size: int = Field(192, ge=1)
    """D, values of an embedding"""
    groups: int = Field(8, ge=2)
    """channel groups of a Res2Net block, one of which is passed on as it is"""
    squeeze_size: int = Field(128, ge=1)
    """hidden units of the squeeze-excitation"""
    attention_size: int = Field(128, ge=1)
    """hidden units of the attention over frames"""
    global_context: bool = True
    """the attention also sees the mean and the deviation of the whole utterance"""
    variant: Literal["wespeaker", "speechbrain"] = "wespeaker"
    """which published implementation it equals in padding, untouched group, norms, attention"""


class Ecapa1024Config(Ecapa512Config):
    """ECAPA-TDNN with 1024 channels (14,657,088 parameters)."""

    channels: int = Field(1024, ge=8)
    """C, channels of the frame layers; a multiple of ``groups``"""


class FrameLayer(nn.Module):
    """norm(relu(conv(x))) over time, as long as its input: (B, C, T) -> (B, C', T)."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, dilation: int = 1, *, mirror: bool
    ) -> None:
        super().__init__()
        padding = (kernel - 1) // 2 * dilation
        mode: Literal["reflect", "zeros"] = "reflect" if mirror and padding else "zeros"
        self.conv = nn.Conv1d(
            in_channels, channels, kernel, padding=padding, dilation=dilation, padding_mode=mode
        )
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(functional.relu(self.conv(x), inplace=True))


class Scales(nn.Module):
    """A chain over channel groups, each fed with its predecessor: (B, C, T) -> (B, C, T).

    Gao et al., "Res2Net", TPAMI 2021, section 3.1.  skip_first: whether the first group, or else
    the last one, is passed on as it is.
    """

    def __init__(
        self, channels: int, groups: int, dilation: int, *, skip_first: bool, mirror: bool
    ) -> None:
        super().__init__()
        width = channels // groups
        self.groups, self.skip_first = groups, skip_first
        self.layers = nn.ModuleList(
            FrameLayer(width, width, 3, dilation, mirror=mirror) for _ in range(groups - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        groups = x.chunk(self.groups, dim=1)
        skipped, *parts = groups if self.skip_first else (groups[-1], *groups[:-1])
        outputs = [self.layers[0](parts[0])]
        for layer, part in zip(self.layers[1:], parts[1:], strict=True):
            outputs.append(layer(part + outputs[-1]))
        whole = [skipped, *outputs] if self.skip_first else [*outputs, skipped]
        return torch.cat(whole, dim=1)


class Block(nn.Module):
    """x + gated(1x1 - scales - 1x1): (B, C, T) -> (B, C, T)."""

    def __init__(self, config: Ecapa512Config, dilation: int) -> None:
        super().__init__()
        channels, speechbrain = config.channels, config.variant == "speechbrain"
        self.enter = FrameLayer(channels, channels, 1, mirror=speechbrain)
        self.scales = Scales(
            channels, config.groups, dilation, skip_first=speechbrain, mirror=speechbrain
        )
        self.leave = FrameLayer(channels, channels, 1, mirror=speechbrain)
        self.squeeze = SqueezeExcitation(channels, hidden=config.squeeze_size)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.squeeze(self.leave(self.scales(self.enter(x))))


def _wespeaker_options(state: Mapping[str, Tensor]) -> Implied:
    pooled = state["conv.weight"].shape[0]
    options = {
        "variant": "wespeaker",
        "aggregated_channels": pooled,
        "embedding_size": state["linear.weight"].shape[0],
        "squeeze_size": state["layer2.se_res2block.3.linear1.weight"].shape[0],
        "attention_size": state["pool.linear1.weight"].shape[0],
        "global_context": state["pool.linear1.weight"].shape[1] != pooled,
    }
    return options, {"num_mels": state["layer1.conv.weight"].shape[1]}


def _speechbrain_options(state: Mapping[str, Tensor]) -> Implied:
    pooled = state["mfa.conv.conv.weight"].shape[0]
    options = {
        "variant": "speechbrain",
        "aggregated_channels": pooled,
        "embedding_size": state["fc.conv.weight"].shape[0],
        "squeeze_size": state["blocks.1.se_block.conv1.conv.weight"].shape[0],
        "attention_size": state["asp.tdnn.conv.conv.weight"].shape[0],
        "global_context": state["asp.tdnn.conv.conv.weight"].shape[1] != pooled,
    }
    features = {**_SPEECHBRAIN_FEATURES, "num_mels": state["blocks.0.conv.conv.weight"].shape[1]}
    return options, features


_SPEECHBRAIN_FEATURES: dict[str, Any] = {
    "name": "logmel",
    "fft_size": 400,
    "padding": "zero",
    "mel_slopes": "symmetric",
    "log": "db",
    "log_floor": 1e-10,
    "dynamic_range_db": 80.0,
    "normalise": "mean",
}
_WESPEAKER_NAMES = [
    (r"^stem\.", r"layer1."),
    (r"^blocks\.(\d)\.enter\.", r"blocks.\1.0."),
    (r"^blocks\.(\d)\.scales\.layers\.(\d)\.conv\.", r"blocks.\1.1.convs.\2."),
    (r"^blocks\.(\d)\.scales\.layers\.(\d)\.norm\.", r"blocks.\1.1.bns.\2."),
    (r"^blocks\.(\d)\.leave\.", r"blocks.\1.2."),
    (r"^blocks\.(\d)\.squeeze\.reduce\.", r"blocks.\1.3.linear1."),
    (r"^blocks\.(\d)\.squeeze\.expand\.", r"blocks.\1.3.linear2."),
    (r"^blocks\.0\.", r"layer2.se_res2block."),
    (r"^blocks\.1\.", r"layer3.se_res2block."),
    (r"^blocks\.2\.", r"layer4.se_res2block."),
    (r"^(layer.*)\.norm\.", r"\1.bn."),
    (r"^aggregation\.", r"conv."),
    (r"^pooling\.attention\.reduce\.", r"pool.linear1."),
    (r"^pooling\.attention\.expand\.", r"pool.linear2."),
    (r"^pooling_norm\.", r"bn."),
    (r"^embedding\.", r"linear."),
]
_SPEECHBRAIN_NAMES = [
    (r"^pooling_norm\.", r"asp_bn.norm."),
    (r"^pooling\.attention\.reduce\.", r"asp.tdnn.conv.conv."),
    (r"^pooling\.attention\.norm\.", r"asp.tdnn.norm.norm."),
    (r"^pooling\.attention\.expand\.", r"asp.conv.conv."),
    (r"^embedding\.", r"fc.conv."),
    (r"^aggregation\.", r"mfa.conv.conv."),
    (r"^aggregation_norm\.", r"mfa.norm.norm."),
    (r"^(stem|blocks.*)\.(conv|norm)\.", r"\1.\2.\2."),
    (r"^blocks\.2\.", r"blocks.3."),
    (r"^blocks\.1\.", r"blocks.2."),
    (r"^blocks\.0\.", r"blocks.1."),
    (r"^stem\.", r"blocks.0."),
    (r"\.enter\.", r".tdnn1."),
    (r"\.scales\.layers\.", r".res2net_block.blocks."),
    (r"\.leave\.", r".tdnn2."),
    (r"\.squeeze\.reduce\.", r".se_block.conv1.conv."),
    (r"\.squeeze\.expand\.", r".se_block.conv2.conv."),
]


@register_model(
    "ecapa_1024",
    Ecapa1024Config,
    parity=golden(
        "importer_wespeaker_ecapa1024_glob_astp192",
        "importer_wespeaker_ecapa1024_astp192",
        "importer_speechbrain_ecapa1024_192",
    ),
)
@register_model(
    "ecapa_512",
    Ecapa512Config,
    parity=golden(
        "importer_wespeaker_ecapa512_glob_astp192", "importer_wespeaker_ecapa512_astp192"
    ),
)
class Ecapa(nn.Module):
    """(B, F, T) log-mel features -> (B, D) embeddings, not normalised; T >= 1 frame (5 mirrored).

    Desplanques et al., Interspeech 2020, figure 2.
    """

    reference = "Desplanques et al., Interspeech 2020"
    task = "speaker"
    input = "features"
    window_seconds = None
    unused_parameters = ()
    heavy_blocks = ("blocks",)
    default_features: dict[str, Any] = {  # noqa: RUF012
        "name": "kaldi_fbank",
        "num_mels": 80,
        "window": "hamming",
        "normalise": "mean",
    }
    formats = (
        Format(
            name="wespeaker",
            original_name=renamer(_WESPEAKER_NAMES),
            marks=("layer1.conv.weight", "layer2.se_res2block.*"),
            extras=("projection.*",),
            options=_wespeaker_options,
        ),
        Format(
            name="speechbrain",
            original_name=renamer(_SPEECHBRAIN_NAMES),
            marks=("blocks.0.conv.conv.weight", "asp.*"),
            options=_speechbrain_options,
        ),
    )

    def __init__(self, config: Ecapa512Config, num_features: int) -> None:
        super().__init__()
        if config.channels % config.groups:
            raise ModelError(
                f"channels={config.channels} cannot be cut into groups={config.groups}",
                fix="choose a multiple",
            )
        speechbrain = config.variant == "speechbrain"
        channels, pooled = config.channels, config.aggregated_channels
        self.embedding_size = config.embedding_size
        self.num_features = num_features
        self.min_frames = 1 + max(_DILATIONS) if speechbrain else 1  # a mirror needs its image
        self.stem = FrameLayer(num_features, channels, 5, mirror=speechbrain)
        self.blocks = nn.ModuleList(Block(config, dilation) for dilation in _DILATIONS)
        self.aggregation = nn.Conv1d(channels * len(_DILATIONS), pooled, 1)
        self.aggregation_norm = nn.BatchNorm1d(pooled) if speechbrain else None
        least = 1e-12 if speechbrain else 1e-7
        attention = ChannelAttention(
            pooled,
            config.attention_size,
            "relu_norm_tanh" if speechbrain else "tanh",
            context=config.global_context,
            min_variance=least,
            add_variance=not speechbrain,
            unbiased=not speechbrain,
        )
        self.pooling = ChannelStatisticsPooling(pooled, attention, least, centred=speechbrain)
        self.pooling_norm = nn.BatchNorm1d(2 * pooled)
        self.embedding = nn.Linear(2 * pooled, config.embedding_size)

    def forward(self, features: Tensor) -> Tensor:
        require_features(features, self.num_features, self.min_frames)
        x = self.stem(features)  # (B, C, T)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        x = functional.relu(self.aggregation(torch.cat(outputs, dim=1)), inplace=True)
        if self.aggregation_norm is not None:
            x = self.aggregation_norm(x)
        with no_autocast(x):
            return self.embedding(self.pooling_norm(self.pooling(x)))
