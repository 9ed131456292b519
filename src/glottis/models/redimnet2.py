"""ReDimNet2: a ReDimNet whose stages look at fewer frames as they go.

Yakovlev and Okhotnikov, "ReDimNet2: scaling speaker verification via time-pooled dimension
reshaping", Interspeech 2026 (arXiv 2603.11841; PalabraAI/redimnet2, MIT).

The blocks are those of `glottis.models.redimnet`; what is new is the stage: it starts from the
aggregate at the full rate of frames, merges bins and frames, works at the lower rate, and is heard
by later stages at the full rate again, every frame repeated.

What differs from the published code, none of it in the result:
- no frame is repeated in memory: a frame is added to all those it stands for, and a group norm sees
  each of them once (repetition changes neither mean nor variance);
- the rest as in `glottis.models.redimnet`.

Registered are the sizes whose parameter count is the published one (README of the repository, to
one decimal): B0, B4, B5 and B6 with the head on the map.  B1, B2 and B3 are not: no form of the
known tables has their published counts with certainty.

Initialisation: the weights of aggregations zero (a mean), all else as torch does.  Shapes: B batch,
F mel bins, T frames, C channels, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from glottis.config import Config
from glottis.errors import ModelError
from glottis.models._interface import require_features, require_sizes
from glottis.models._parity import golden, published_count
from glottis.models._redimnet_names import published_name
from glottis.models._redimnet_stored import read_stored
from glottis.models._registry import register_model
from glottis.models.parts.aggregation import LayerAggregation
from glottis.models.parts.maps import MapConv, Pointwise, num_groups
from glottis.models.parts.pooling import ChannelAttention, ChannelStatisticsPooling
from glottis.models.parts.precision import at_least_float32, no_autocast
from glottis.models.parts.sequences import NORM_EPS, NUM_HEADS, TimeBlock, channels_first
from glottis.models.redimnet import (
    Channels,
    GlobalContext,
    GroupChannels,
    HeadChannels,
    MapBlock,
    ReDimNet,
    TimeCore,
    map_block,
)


class ReDim2Stage(Config):
    """One stage: fewer bins and frames, blocks on the map, a block over time."""

    bins: int = Field(1, ge=1)
    """this many neighbouring bins become one; the channels grow as much"""
    frames: int = Field(1, ge=1)
    """this many neighbouring frames become one from this stage on"""
    num_blocks: int = Field(2, ge=1)
    """blocks on the map"""
    expansion: float = Field(1.0, gt=0)
    """the blocks are this many times as wide as the channels that are left behind them"""
    reduction: int | None = Field(24, ge=1)
    """the block over time works on F C / reduction channels; None: there is none"""


def table(*rows: tuple[int, int, int, float, int]) -> tuple[ReDim2Stage, ...]:
    """Stages from rows of bins, frames, blocks, expansion and reduction."""
    return tuple(
        ReDim2Stage(
            bins=bins, frames=frames, num_blocks=blocks, expansion=expansion, reduction=reduction
        )
        for bins, frames, blocks, expansion, reduction in rows
    )


Stages2 = Annotated[tuple[ReDim2Stage, ...], Field(min_length=1, description="in order")]
OnMap = Annotated[
    bool, Field(description="that convolution and the pooling see the last map, channel by channel")
]


class ReDimNet2Config(Config):
    """ReDimNet2 of any table; the defaults are B4 (6,659,744 parameters, published 6.6 M)."""

    embedding_size: int = Field(192, ge=1)
    """D, values of an embedding"""
    channels: Channels = 32
    stages: Stages2 = table(
        (1, 1, 2, 4.0, 24),
        (2, 1, 3, 3.0, 24),
        (1, 2, 4, 2.0, 24),
        (2, 1, 5, 1.0, 24),
        (1, 2, 4, 1.0, 24),
        (2, 1, 3, 1.0, 24),
    )
    map_block: MapBlock = "basic_resnet"
    group_channels: GroupChannels = 1
    grouped_merge: bool = True
    """the convolutions that merge bins and frames have one group per common divisor of channels"""
    time_core: TimeCore = "conv+att"
    head_channels: HeadChannels = None
    head_on_map: OnMap = False
    dual_aggregation: bool = False
    """map and sequence of a stage are both handed on, each behind a group norm"""
    global_context: GlobalContext = True
    embedding_norm: bool = False
    """a batch norm on the embedding"""


class ReDimNet2B0Config(ReDimNet2Config):
    """ReDimNet2-B0, the smallest size (1,115,220 parameters, published 1.1 M)."""

    channels: Channels = 12
    stages: Stages2 = table(
        (1, 1, 2, 2.0, 36),
        (2, 1, 3, 1.0, 36),
        (1, 2, 4, 1.0, 36),
        (2, 1, 5, 1.0, 36),
        (1, 2, 4, 1.0, 18),
        (2, 1, 3, 1.0, 18),
    )
    head_channels: HeadChannels = 64
    head_on_map: OnMap = True


class ReDimNet2B5Config(ReDimNet2Config):
    """ReDimNet2-B5, wider than B4 (8,959,272 parameters, published 8.9 M)."""

    channels: Channels = 48
    stages: Stages2 = table(
        (1, 1, 2, 4.0, 48),
        (2, 1, 3, 3.0, 48),
        (1, 2, 4, 2.0, 48),
        (2, 1, 5, 1.0, 48),
        (1, 2, 4, 1.0, 32),
        (2, 1, 3, 1.0, 32),
    )
    head_channels: HeadChannels = 256
    head_on_map: OnMap = True


class ReDimNet2B6Config(ReDimNet2Config):
    """ReDimNet2-B6, the largest size (12,394,784 parameters, published 12.3 M)."""

    channels: Channels = 64
    stages: Stages2 = table(
        (1, 1, 3, 3.0, 64),
        (2, 1, 4, 2.0, 64),
        (1, 2, 5, 2.0, 48),
        (2, 1, 5, 1.0, 48),
        (1, 2, 4, 0.75, 32),
        (2, 1, 3, 0.5, 24),
    )
    head_channels: HeadChannels = 224
    head_on_map: OnMap = True


class Squeeze2(nn.Module):
    """(B, T, F, C e) -> (B, T, F, C): 1x1 convolution and norm."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv = Pointwise(width, channels)
        self.norm = nn.BatchNorm2d(channels, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.norm)


class SequenceGroupNorm(nn.GroupNorm):
    """Group norm of (B, T, C): mean and variance over all frames and the channels of a group."""

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x):
            y = super().forward(at_least_float32(x).transpose(1, 2))
        return y.transpose(1, 2).contiguous().to(x.dtype)


class Stage2(nn.Module):
    """Earlier outputs (B, T or less, F C) -> one or two more, at this stage's rate of frames.

    bins, channels: F and C behind the merge.  frames: of the input that become one here.
    num_inputs: earlier outputs.
    """

    def __init__(
        self,
        config: ReDimNet2Config,
        stage: ReDim2Stage,
        *,
        num_inputs: int,
        frames: int,
        bins: int,
        channels: int,
    ) -> None:
        super().__init__()
        volume, width = bins * channels, int(channels * stage.expansion)
        self.inside = channels // stage.bins
        self.aggregation = LayerAggregation(num_inputs, volume)
        size = (stage.bins, frames)
        groups = math.gcd(self.inside, width) if config.grouped_merge else 1
        self.merge = MapConv(self.inside, width, size, stride=size, groups=groups)
        self.blocks = nn.Sequential(
            *(
                map_block(config.map_block, width, bins, config.group_channels)
                for _ in range(stage.num_blocks)
            )
        )
        self.squeeze = Squeeze2(width, channels) if stage.expansion != 1 else None
        self.over_time: TimeBlock | None = None
        if stage.reduction is not None:
            self.over_time = TimeBlock(volume, volume // stage.reduction, config.time_core)
        self.map_norm: SequenceGroupNorm | None = None
        self.time_norm: SequenceGroupNorm | None = None
        if config.dual_aggregation:
            self.map_norm = SequenceGroupNorm(config.channels, volume)
            self.time_norm = SequenceGroupNorm(config.channels, volume)

    def forward(self, *earlier: Tensor) -> tuple[Tensor, ...]:
        x = self.aggregation(*earlier)
        x = self.blocks(self.merge(x.unflatten(2, (-1, self.inside))))
        if self.squeeze is not None:
            x = self.squeeze(x)
        x = x.flatten(2)
        y = x if self.over_time is None else self.over_time(x)
        if self.map_norm is None or self.time_norm is None:
            return (y,)
        return self.map_norm(x), self.time_norm(y)


class ReDimNet2(nn.Module):
    """(B, F, T) log-mel features -> (B, D) embeddings, not normalised; T >= the merged frames.

    Yakovlev and Okhotnikov, Interspeech 2026.  F is a multiple of all merged bins together; frames
    beyond the last multiple of all merged frames together are not heard.
    """

    reference = "Yakovlev and Okhotnikov, Interspeech 2026"
    task = "speaker"
    input = "features"
    window_seconds = None
    unused_parameters = ("stages.0.aggregation.weight",)
    heavy_blocks = ("stages",)
    default_features = ReDimNet.default_features

    def __init__(self, config: ReDimNet2Config, num_features: int) -> None:
        super().__init__()
        require_fitting(config, num_features)
        self.num_features = num_features
        self.embedding_size = config.embedding_size
        volume = num_features * config.channels
        self.stem = MapConv(1, config.channels)
        self.stem_norm = nn.LayerNorm(config.channels, NORM_EPS)
        self.stem_group_norm: SequenceGroupNorm | None = None
        if config.dual_aggregation:
            self.stem_group_norm = SequenceGroupNorm(config.channels, volume)
        self.dual = config.dual_aggregation
        self.stages = nn.ModuleList()
        bins, channels, frames, outputs = num_features, config.channels, 1, 1
        for stage in config.stages:
            bins, channels = bins // stage.bins, channels * stage.bins
            frames *= stage.frames
            self.stages.append(
                Stage2(
                    config,
                    stage,
                    num_inputs=outputs,
                    frames=frames,
                    bins=bins,
                    channels=channels,
                )
            )
            outputs += 2 if config.dual_aggregation else 1
        self.min_frames = self.merged_frames = frames
        self.aggregation = LayerAggregation(outputs, volume)
        self.on_map, self.inside = config.head_on_map, channels
        pooled = volume
        self.head: Pointwise | None = None
        if config.head_channels is not None:
            self.head = Pointwise(channels if self.on_map else volume, config.head_channels)
            pooled = config.head_channels * (bins if self.on_map else 1)
        attention = ChannelAttention(pooled, 128, "tanh", context=config.global_context)
        self.pooling = ChannelStatisticsPooling(pooled, attention)
        self.norm = nn.BatchNorm1d(self.pooling.output_size)
        self.embedding = nn.Linear(self.pooling.output_size, config.embedding_size)
        self.embedding_norm: nn.BatchNorm1d | None = None
        if config.embedding_norm:
            self.embedding_norm = nn.BatchNorm1d(config.embedding_size)

    def forward(self, features: Tensor) -> Tensor:
        require_features(features, self.num_features, self.min_frames)
        x = self.aggregation(*self.outputs(features))
        if self.on_map:
            x = x.unflatten(2, (-1, self.inside))  # (B, T, F, C)
        if self.head is not None:
            x = self.head(x)
        if self.on_map:
            x = x.transpose(2, 3).flatten(2)  # channel by channel
        with no_autocast(x):
            x = channels_first(at_least_float32(x))
            embedding = self.embedding(self.norm(self.pooling(x)))
            return embedding if self.embedding_norm is None else self.embedding_norm(embedding)

    def outputs(self, features: Tensor) -> list[Tensor]:
        """The outputs of stem and stages, each (B, T or a fraction of it, F C)."""
        end = features.shape[2] - features.shape[2] % self.merged_frames
        x = self.stem(features[:, :, :end].transpose(1, 2).contiguous()[..., None])
        x = self.stem_norm(x).to(x.dtype).flatten(2)
        outputs = [x if self.stem_group_norm is None else self.stem_group_norm(x)]
        for stage in self.stages:
            outputs.extend(stage(*outputs))
        return outputs

    def original_name(self, name: str) -> str:
        """The name of our tensor ``name`` in the published checkpoints."""
        return published_name(name, self.stages, head="head", dual=self.dual)

    original_for = ("redimnet2_b0",)
    original_prefixes = ReDimNet.original_prefixes
    original_extras = ReDimNet.original_extras
    original_options = staticmethod(ReDimNet.original_options)

    @staticmethod
    def original_config(
        content: Mapping[str, Any], arch: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options and front-end options of a stored ``model_config``; it must describe ``arch``.

        Released files ask for another front end (``feat_type`` tf) and are refused.
        """
        return read_stored(content, arch, ReDimNet2Config, read_row, required=_STORED)


_STORED = (
    *("F", "C", "block_1d_type", "block_2d_type", "stages_setup", "group_divisor", "hop_length"),
    *("compress_tconvs", "out_channels", "return_2d_output", "global_context_att", "feat_type"),
)


def read_row(row: list[Any]) -> dict[str, Any]:
    """A row of a published table: (bins, frames), blocks, expansion, kernels (idle), reduction."""
    if len(row) != 5 or len(row[0]) != 2:
        raise ModelError(f"a row of stages_setup is {row}, not five values, the first one a pair")
    (bins, frames), blocks, expansion, _, reduction = row
    return {
        "bins": bins,
        "frames": frames,
        "num_blocks": blocks,
        "expansion": float(expansion),
        "reduction": reduction,
    }


def require_fitting(config: ReDimNet2Config, num_features: int) -> None:
    """Raise `ModelError` unless bins, channels and groups divide as the stages need it."""
    require_sizes(lambda size: _require_fitting(config, size), num_features)


def _require_fitting(config: ReDimNet2Config, num_features: int) -> None:
    bins, channels = num_features, config.channels
    volume = bins * channels
    for index, stage in enumerate(config.stages):
        if bins % stage.bins:
            raise ModelError(
                f"stage {index} merges {stage.bins} bins each, but has {bins} of them",
                fix="change the table of stages",
            )
        bins, channels = bins // stage.bins, channels * stage.bins
        width = int(channels * stage.expansion)
        groups = num_groups(width, config.group_channels)
        if groups == 0 or width % groups:
            raise ModelError(
                f"stage {index} cannot share {width} channels out to {groups} groups",
                fix="change channels or group_channels",
            )
        if stage.reduction is not None and volume // stage.reduction % NUM_HEADS:
            raise ModelError(
                f"stage {index} has {volume // stage.reduction} channels over time, which are no "
                f"{NUM_HEADS} heads",
                fix="change its reduction",
            )
        if stage.reduction is None and config.dual_aggregation:
            raise ModelError(
                f"stage {index} has no block over time, whose output dual_aggregation hands on",
                fix="give it a reduction",
            )


_TABLE = "the table of the repository, which cuts to one decimal"
for _name, _config, _parity in (
    ("redimnet2_b0", ReDimNet2B0Config, golden("redimnet2_b0_2d", "redimnet2_b0_1d")),
    ("redimnet2_b4", ReDimNet2Config, published_count("6.6M", _TABLE)),
    ("redimnet2_b5", ReDimNet2B5Config, published_count("8.9M", _TABLE)),
    ("redimnet2_b6", ReDimNet2B6Config, published_count("12.3M", _TABLE)),
):
    register_model(_name, _config, parity=_parity)(ReDimNet2)
