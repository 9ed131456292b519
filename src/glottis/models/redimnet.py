"""ReDimNet b0 to b6: a map and a sequence of one volume, with every stage seeing all earlier ones.

Yakovlev, Makarov, Balykin, Malov, Okhotnikov and Torgashov, "Reshape dimensions network for speaker
recognition", Interspeech 2024 (arXiv 2407.18223).  Weights of its authors (IDRnD/ReDimNet, MIT)
load under their original names; the options and the hop of the front end come from the
``model_config`` inside their files.

Channels times bins is the same number in every stage, so that the map (B, T, F, C) and the sequence
(B, T, F C) are two views of one piece of memory: `parts/maps.py`.

What differs from the published code, none of it in the result:
- maps are time first and channels last, so that no change of view moves a value;
- a convolution whose kernel is its stride over frequency is a matrix product;
- in eval mode a batch norm right behind a convolution is folded into it;
- the weighted sums of earlier stages are accumulated, not stacked;
- the aggregation of the first stage, of one input, is not computed.

Worth knowing: the sizes are told apart by more than their width; see `docs/models.md` for the three
networks that are called B2.  A residual block has its ReLU before the first batch norm.  The
kernel lists in the published tables act on nothing: kernels of maps are 3x3.

Initialisation: the weights of aggregations zero (a mean), all else as torch does.  Shapes: B batch,
F mel bins, T frames, C channels, D embedding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.errors import ModelError
from glottis.models._interface import require_features, require_sizes
from glottis.models._parity import golden
from glottis.models._redimnet_names import published_name
from glottis.models._redimnet_stored import read_stored
from glottis.models._registry import register_model
from glottis.models.parts.aggregation import LayerAggregation
from glottis.models.parts.maps import (
    FrequencyGate,
    MapConv,
    MergeBins,
    NextBlock,
    Pointwise,
    SeparableResidualBlock,
    num_groups,
)
from glottis.models.parts.pooling import ChannelAttention, ChannelStatisticsPooling
from glottis.models.parts.precision import at_least_float32, no_autocast
from glottis.models.parts.sequences import NORM_EPS, NUM_HEADS, Core, TimeBlock, channels_first


class ReDimStage(Config):
    """One stage: fewer bins, blocks on the map, a block over time."""

    stride: int = Field(1, ge=1)
    """this many neighbouring bins become one; the channels grow as much"""
    num_blocks: int = Field(2, ge=1)
    """blocks on the map"""
    expansion: int = Field(1, ge=1)
    """the blocks are this many times as wide as the channels that are left behind them"""
    reduction: int | None = Field(12, ge=1)
    """the block over time works on F C / reduction channels; None: there is none"""


def table(*rows: tuple[int, int, int, int | None]) -> tuple[ReDimStage, ...]:
    """Stages from rows of stride, blocks, expansion and reduction."""
    return tuple(
        ReDimStage(stride=stride, num_blocks=blocks, expansion=expansion, reduction=reduction)
        for stride, blocks, expansion, reduction in rows
    )


Channels = Annotated[
    int, Field(ge=1, description="C before the first stage; every stage keeps C F")
]
Stages = Annotated[tuple[ReDimStage, ...], Field(min_length=1, description="in order")]
MapBlock = Annotated[
    Literal["convnext_like", "basic_resnet", "basic_resnet_fwse"],
    Field(description="on maps: after ConvNeXt, residual, residual with gates per bin (fwSE)"),
]
GroupChannels = Annotated[int, Field(ge=1, description="channels per group of 3x3 convolutions")]
TimeCore = Annotated[
    Core, Field(description="over time: one convolution, or four, before the attention")
]
HeadChannels = Annotated[
    int | None, Field(ge=1, description="width of a 1x1 convolution before the pooling; None: none")
]
GlobalContext = Annotated[
    bool, Field(description="the pooling's attention sees mean and deviation of the utterance")
]


class ReDimNetConfig(Config):
    """ReDimNet of any published table, as the published class has it (4,234,193 parameters)."""

    embedding_size: int = Field(192, ge=1)
    """D, values of an embedding"""
    channels: Channels = 16
    stages: Stages = table(
        (1, 2, 1, 12), (2, 2, 1, 12), (1, 3, 1, 12), (2, 4, 1, 8), (1, 4, 1, 8), (2, 4, 1, 4)
    )
    map_block: MapBlock = "convnext_like"
    group_channels: GroupChannels = 4
    time_core: TimeCore = "att"
    head_channels: HeadChannels = None
    global_context: GlobalContext = False
    embedding_norm: bool = False
    """a batch norm on the embedding"""
    aggregation_dropout: float = Field(0.0, ge=0, lt=1)
    """in training, on the output of every stage"""
    projection_dropout: float = Field(0.0, ge=0, lt=1)
    """in training, before the last linear layer"""


class ReDimNetB0Config(ReDimNetConfig):
    """ReDimNet-B0 on 60 mel bins, the smallest released size (1,004,251 parameters)."""

    channels: Channels = 10
    stages: Stages = table(
        (1, 2, 1, 30), (2, 3, 2, 30), (1, 3, 3, 30), (2, 4, 2, 10), (1, 3, 1, 10)
    )
    map_block: MapBlock = "basic_resnet"
    group_channels: GroupChannels = 1
    time_core: TimeCore = "conv+att"
    global_context: GlobalContext = True


class ReDimNetB1Config(ReDimNetB0Config):
    """ReDimNet-B1 on 72 mel bins (2,126,937 parameters)."""

    channels: Channels = 12
    stages: Stages = table(
        (1, 2, 1, None), (2, 3, 1, None), (3, 4, 1, 12), (2, 5, 1, 12), (2, 3, 1, 8)
    )
    map_block: MapBlock = "convnext_like"
    group_channels: GroupChannels = 8


class ReDimNetB2Config(ReDimNetB1Config):
    """ReDimNet-B2 as its authors released it, a frame every 15 ms (5,067,057 parameters)."""

    channels: Channels = 16
    stages: Stages = table(
        (1, 2, 1, 12), (2, 2, 1, 12), (1, 3, 1, 12), (3, 4, 1, 8), (1, 4, 1, 8), (2, 4, 1, 4)
    )
    group_channels: GroupChannels = 4


class ReDimNetB2MatryoshkaConfig(ReDimNetB2Config):
    """ReDimNet-B2 for Matryoshka embeddings of 64 to 256 values (5,016,305 parameters)."""

    embedding_size: int = Field(256, ge=1)
    """D, values of the largest embedding; shorter ones are its first values"""
    head_channels: HeadChannels = 512
    global_context: GlobalContext = False


class ReDimNetB3Config(ReDimNetB0Config):
    """ReDimNet-B3, basic residual blocks with a gate per bin (3,225,021 parameters)."""

    channels: Channels = 16
    stages: Stages = table(
        (1, 6, 4, 32), (2, 6, 2, 32), (1, 8, 2, 32), (2, 10, 2, 16), (1, 10, 1, 16), (2, 8, 1, 16)
    )
    map_block: MapBlock = "basic_resnet_fwse"


class ReDimNetB4Config(ReDimNetB3Config):
    """ReDimNet-B4, the blocks of B3, twice as wide (6,441,521 parameters)."""

    channels: Channels = 32
    stages: Stages = table(
        (1, 4, 2, 48), (2, 4, 2, 48), (1, 6, 2, 48), (2, 6, 1, 32), (1, 8, 1, 24), (2, 4, 1, 16)
    )


class ReDimNetB5Config(ReDimNetB4Config):
    """ReDimNet-B5, B4 with wider groups in its convolutions (7,659,761 parameters)."""

    group_channels: GroupChannels = 16


class ReDimNetB6Config(ReDimNetB0Config):
    """ReDimNet-B6, the largest released size (15,015,473 parameters)."""

    channels: Channels = 32
    stages: Stages = table(
        (1, 4, 4, 32), (2, 6, 2, 32), (1, 6, 2, 24), (3, 8, 1, 24), (1, 8, 1, 16), (2, 8, 1, 16)
    )
    group_channels: GroupChannels = 32


class Stage(nn.Module):
    """Earlier outputs (B, T, F C) -> one more: aggregate, merge bins, blocks on the map, over time.

    bins, channels: F and C behind the merge.
    """

    def __init__(
        self, config: ReDimNetConfig, stage: ReDimStage, index: int, bins: int, channels: int
    ) -> None:
        super().__init__()
        volume, width = bins * channels, channels * stage.expansion
        inside = channels // stage.stride
        self.inside = inside
        self.aggregation = LayerAggregation(index + 1, volume if index else 1)
        self.merge = MergeBins(inside, width, stage.stride)
        self.blocks = nn.Sequential(
            *(
                map_block(config.map_block, width, bins, config.group_channels)
                for _ in range(stage.num_blocks)
            )
        )
        self.squeeze: Squeeze | None = None
        if stage.expansion != 1:
            groups = num_groups(channels, config.group_channels)
            self.squeeze = Squeeze(width, channels, groups)
        self.over_time: TimeBlock | None = None
        if stage.reduction is not None:
            self.over_time = TimeBlock(volume, volume // stage.reduction, config.time_core)
        self.dropout = nn.Dropout(config.aggregation_dropout)

    def forward(self, *earlier: Tensor) -> Tensor:
        x = self.aggregation(*earlier)
        x = self.blocks(self.merge(x.unflatten(2, (-1, self.inside))))
        if self.squeeze is not None:
            x = self.squeeze(x)
        x = x.flatten(2)
        return self.dropout(x if self.over_time is None else self.over_time(x))


class Squeeze(nn.Module):
    """(B, T, F, C e) -> (B, T, F, C): grouped 3x3 convolution - norm - GELU - 1x1 convolution."""

    def __init__(self, width: int, channels: int, groups: int) -> None:
        super().__init__()
        self.conv = MapConv(width, channels, groups=groups)
        self.norm = nn.BatchNorm2d(channels, NORM_EPS)
        self.pointwise = Pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(functional.gelu(self.conv(x, self.norm)))


def map_block(kind: str, width: int, bins: int, group_channels: int) -> nn.Module:
    """One block on a map of ``bins`` bins and ``width`` channels."""
    if kind == "convnext_like":
        return NextBlock(width, group_channels)
    gate = None
    if kind == "basic_resnet_fwse":
        gate = FrequencyGate(bins, min(64, max(width, 32)))
    return SeparableResidualBlock(width, group_channels, gate)


class ReDimNet(nn.Module):
    """(B, F, T) log-mel features -> (B, D) embeddings, not normalised; T >= 1 frame.

    Yakovlev et al., Interspeech 2024.  F is a multiple of all strides together.
    """

    reference = "Yakovlev et al., Interspeech 2024"
    task = "speaker"
    input = "features"
    min_frames = 1
    window_seconds = None
    unused_parameters = ("stages.0.aggregation.weight",)
    heavy_blocks = ("stages",)
    default_features: dict[str, Any] = {  # noqa: RUF012
        "name": "logmel",
        "num_mels": 72,
        "fft_size": 512,
        "window_samples": 400,
        "hop_samples": 160,
        "window": "hamming",
        "pre_emphasis": 0.97,
        "low_hz": 20.0,
        "high_hz": 7600.0,
        "log_floor": 1e-6,
        "normalise": "mean",
    }

    def __init__(self, config: ReDimNetConfig, num_features: int) -> None:
        super().__init__()
        require_fitting(config, num_features)
        self.num_features = num_features
        self.embedding_size = config.embedding_size
        volume = num_features * config.channels
        self.stem = MapConv(1, config.channels)
        self.stem_norm = nn.LayerNorm(config.channels, NORM_EPS)
        self.stages = nn.ModuleList()
        bins, channels = num_features, config.channels
        for index, stage in enumerate(config.stages):
            bins, channels = bins // stage.stride, channels * stage.stride
            self.stages.append(Stage(config, stage, index, bins, channels))
        self.aggregation = LayerAggregation(len(config.stages) + 1, volume)
        self.head: Pointwise | None = None
        if config.head_channels is not None:
            self.head = Pointwise(volume, config.head_channels)
            self.head_norm = nn.BatchNorm2d(config.head_channels)
        pooled = config.head_channels or volume
        attention = ChannelAttention(pooled, 128, "tanh", context=config.global_context)
        self.pooling = ChannelStatisticsPooling(pooled, attention)
        self.norm = nn.BatchNorm1d(self.pooling.output_size)
        self.dropout = nn.Dropout(config.projection_dropout)
        self.embedding = nn.Linear(self.pooling.output_size, config.embedding_size)
        self.embedding_norm: nn.BatchNorm1d | None = None
        if config.embedding_norm:
            self.embedding_norm = nn.BatchNorm1d(config.embedding_size)

    def forward(self, features: Tensor) -> Tensor:
        require_features(features, self.num_features, self.min_frames)
        x = self.aggregation(*self.outputs(features))
        if self.head is not None:
            x = self.head(x, self.head_norm)
        with no_autocast(x):
            pooled = self.pooling(channels_first(at_least_float32(x)))
            embedding = self.embedding(self.dropout(self.norm(pooled)))
            return embedding if self.embedding_norm is None else self.embedding_norm(embedding)

    def outputs(self, features: Tensor) -> list[Tensor]:
        """The outputs of stem and stages, each (B, T, F C)."""
        x = self.stem(features.transpose(1, 2).contiguous()[..., None])  # (B, T, F, C)
        outputs = [self.stem_norm(x).to(x.dtype).flatten(2)]
        for stage in self.stages:
            outputs.append(stage(*outputs))
        return outputs

    def original_name(self, name: str) -> str:
        """The name of our tensor ``name`` in the published checkpoints."""
        return published_name(name, self.stages, head="mfa.0")

    original_prefixes = ("module.",)
    """put before every name by a wrapper for several GPUs"""
    original_extras = ("spec.*",)
    """tables of the front end"""

    @staticmethod
    def original_options(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options and front-end options that the shapes in a checkpoint imply."""
        options, features = {}, {}
        for name, value in state.items():
            if name.endswith("mel_scale.fb"):
                features["num_mels"] = value.shape[1]
            elif name in ("linear.weight", "projection.linear.weight"):
                options["embedding_size"] = value.shape[0]
        return options, features

    @staticmethod
    def original_config(
        content: Mapping[str, Any], arch: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options and front-end options of a stored ``model_config``; it must describe ``arch``."""
        return read_stored(content, arch, ReDimNetConfig, read_row)


def read_row(row: list[Any]) -> dict[str, Any]:
    """A row of a published table: stride, blocks, expansion, kernels (idle), reduction."""
    if len(row) != 5:
        raise ModelError(f"a row of stages_setup has {len(row)} values, not 5")
    stride, blocks, expansion, _, reduction = row
    return {
        "stride": stride,
        "num_blocks": blocks,
        "expansion": expansion,
        "reduction": reduction,
    }


def require_fitting(config: ReDimNetConfig, num_features: int) -> None:
    """Raise `ModelError` unless bins, channels and groups divide as the stages need it."""
    require_sizes(lambda size: _require_fitting(config, size), num_features)


def _require_fitting(config: ReDimNetConfig, num_features: int) -> None:
    bins, channels = num_features, config.channels
    for index, stage in enumerate(config.stages):
        volume = bins * channels
        if bins % stage.stride:
            raise ModelError(
                f"stage {index} merges {stage.stride} bins each, but has {bins} of them",
                fix="change the table of stages",
            )
        bins, channels = bins // stage.stride, channels * stage.stride
        for width in (channels, channels * stage.expansion):
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


@register_model("redimnet_b0", ReDimNetB0Config, parity=golden("redimnet_b0"))
class ReDimNetB0(ReDimNet):
    """ReDimNet on F = 60 mel bins: (B, F, T) -> (B, D).  Yakovlev et al., Interspeech 2024."""

    default_features = {**ReDimNet.default_features, "num_mels": 60}  # noqa: RUF012


@register_model("redimnet_b2", ReDimNetB2Config, parity=golden("redimnet_b2_official"))
class ReDimNetB2(ReDimNet):
    """ReDimNet with the hop of 15 ms of the released B2: (B, F, T) -> (B, D).

    Yakovlev et al., Interspeech 2024.
    """

    default_features = {**ReDimNet.default_features, "hop_samples": 240}  # noqa: RUF012


@register_model("redimnet_b2_mrl", ReDimNetB2MatryoshkaConfig, parity=golden("mrl_redimnet_b2"))
class ReDimNetB2Matryoshka(ReDimNet):
    """ReDimNet-B2 whose embedding is a Matryoshka projection: (B, F, T) -> (B, D).

    Batch norm and linear layer on the pooled statistics, as in any ReDimNet, with 256 values: the
    first 64, 128 and 192 of them are embeddings too, if the loss trains them.  Kusupati et al.,
    "Matryoshka representation learning", NeurIPS 2022; the form of sappho192/redimnet-mrl (MIT).
    """

    def original_name(self, name: str) -> str:
        """The name of our tensor ``name`` in checkpoints of redimnet-mrl."""
        found = re.sub(r"^norm\.", "projection.bn.", name)
        found = re.sub(r"^embedding\.", "projection.linear.", found)
        return found if found != name else "backbone." + super().original_name(name)

    original_extras = ("backbone.spec.*",)
    """tables of the front end"""


for _name, _config, _vectors in (
    ("redimnet", ReDimNetConfig, "redimnet_wrap_default"),
    ("redimnet_b1", ReDimNetB1Config, "redimnet_b1"),
    ("redimnet_b3", ReDimNetB3Config, "redimnet_b3"),
    ("redimnet_b4", ReDimNetB4Config, "redimnet_b4"),
    ("redimnet_b5", ReDimNetB5Config, "redimnet_b5"),
    ("redimnet_b6", ReDimNetB6Config, "redimnet_b6"),
):
    register_model(_name, _config, parity=golden(_vectors))(ReDimNet)
