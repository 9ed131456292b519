"""Nested speaker network: every level of a convolutional network sees all earlier levels.

A public trainer's experiment (dimuthuanuraj/voxceleb_trainer, "NestedSpeakerNet", 2025; written up
as "Nested Architecture Stability Fixes"); after the idea of nested levels in Behrouz et al.,
"Nested learning: the illusion of deep learning architectures", NeurIPS 2025.  Checkpoints of its
published code load under their original names and give its outputs.

Three configurations, described in `docs/nested.md`:

    nested            the published code (the third attempt): levels 3 and up are nested
    nested_report004  what the report calls fixed, taken at its word, its fusion included
    nested_original   before the report, rebuilt from its text: no code of it exists

Levels are numbered from 1.  A nested level i adds gate * P to its input, where P comes from the
outputs of levels 1 to i - 1: resized to one size, concatenated, 1x1 convolution, norm, ReLU,
Dropout2d.  The shortcut of the level starts from the input without that.

Worth knowing: there is no ReLU after a shortcut; strides are 2, 2, 2, 1, 1; sigmoid(0.3) is 0.574,
more than the fixed 0.5 that it replaced.  Fusion "sum" crashed in the published code (it adds maps
of unequal width).  Here every map gets a 1x1 convolution and a norm of its own before the sum;
without those norms, "sum" would be "concat" written differently.

What differs from the published code, none of it in the result: a map that is needed twice in one
size is resized once, and not at all if it has that size; pooling in float32 under autocast.

Initialisation: convolutions Kaiming normal (fan-out, ReLU), norms 1 and 0, the attention vector
Xavier normal, the gates at ``nested_weight``, linear layers as torch does.

Shapes: B batch, F features, T frames, C channels, D embedding; a map is (B, C, H, W), where H is F
and W is T, or fewer after a stride.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config, OnlyWith
from glottis.errors import ConfigError
from glottis.models._formats import renamer
from glottis.models._interface import require_features
from glottis.models._parity import golden, ours
from glottis.models._registry import register_model
from glottis.models.parts.pooling import AttentiveStatisticsPooling, SelfAttentivePooling
from glottis.models.parts.precision import at_least_float32, no_autocast
from glottis.models.parts.squeeze import SqueezeExcitation

_WIDTHS = (32, 64, 128, 256, 512, 1024)  # of the stem and of levels 1 to 5
Alignment = Literal["adaptive", "bilinear"]
Norm = Literal["batch", "group", "mixed"]


_REBUILT = ours("rebuilt from the text of its report; no code of it exists")


class NestedConfig(Config):
    """Nested speaker network as published, levels 3 and 4 nested (1,619,842 parameters)."""

    embedding_size: int = Field(512, ge=1)
    """D, values of an embedding"""
    num_levels: int = Field(4, ge=3, le=5)
    """levels; the last one has 256, 512 or 1024 channels"""
    pooling: Literal["sap", "asp"] = "sap"
    """over time: self-attentive (weighted mean) or attentive statistics (mean and deviation)"""
    fusion: Literal["concat", "attention", "sum", "none"] = "concat"
    """of stem and all levels before the pooling: side by side, the same with a learned weight per
    map and clip, added, or only the last level"""
    nested_levels: Literal["all", "from_third"] | tuple[int, ...] = "from_third"
    """levels with a nested input: all that have earlier ones (2 and up), 3 and up, or a list; an
    empty list for none"""
    gate: Literal["sigmoid", "fixed"] = "sigmoid"
    """factor of the nested input: sigmoid of a learned number per level, or a constant"""
    nested_weight: float = 0.3
    """that number at the start (the gate is then sigmoid(0.3) = 0.574), or the constant itself"""
    alignment: Alignment = "adaptive"
    """how earlier outputs get the size of a level's input: mean over cells, or bilinear samples"""
    fusion_alignment: Alignment = "bilinear"
    """the same for the fusion"""
    norm: Norm = "mixed"
    """batch norm everywhere, group norm everywhere, or group norm only for the nested input and
    the 1x1 convolution of a level"""
    norm_groups: Annotated[
        int, OnlyWith("norm=mixed or norm=group", lambda o: o["norm"] != "batch")
    ] = Field(8, ge=1)
    """groups of a group norm; a divisor of 32"""
    nested_dropout: float = Field(0.1, ge=0, lt=1)
    """share of the channels of the nested input that training silences"""


class NestedReport004Config(NestedConfig):
    """Nested speaker network as its report says: all levels, group norm (1,624,131 parameters)."""

    nested_levels: Literal["all", "from_third"] | tuple[int, ...] = "all"
    """levels with a nested input: all that have earlier ones (2 and up), 3 and up, or a list; an
    empty list for none"""
    fusion_alignment: Alignment = "adaptive"
    """how maps get the size of the last level for the fusion: cell means or bilinear samples"""
    norm: Norm = "group"
    """batch norm everywhere, group norm everywhere, or group norm only for the nested input and
    the 1x1 convolution of a level"""


class NestedOriginalConfig(NestedConfig):
    """Nested speaker network before its report's fixes, from the text (1,624,128 parameters)."""

    nested_levels: Literal["all", "from_third"] | tuple[int, ...] = "all"
    """levels with a nested input: all that have earlier ones (2 and up), 3 and up, or a list; an
    empty list for none"""
    gate: Literal["sigmoid", "fixed"] = "fixed"
    """factor of the nested input: sigmoid of a learned number per level, or a constant"""
    nested_weight: float = 0.5
    """the number at the start (sigmoid), or the constant itself (fixed)"""
    alignment: Alignment = "bilinear"
    """how earlier outputs get the size of a level's input: mean over cells, or bilinear samples"""
    norm: Norm = "batch"
    """batch norm everywhere, group norm everywhere, or group norm only for the nested input and
    the 1x1 convolution of a level"""
    nested_dropout: float = Field(0.0, ge=0, lt=1)
    """share of the channels of the nested input that training silences"""


def resized(x: Tensor, size: torch.Size, kind: Alignment) -> Tensor:
    """(B, C, H, W) -> (B, C, *size); a map of that size already is returned as it is."""
    if x.shape[2:] == size:
        return x
    if kind == "adaptive":
        return functional.adaptive_avg_pool2d(x, (size[0], size[1]))
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


class Parts:
    """What the options say of all levels: their norms and their nested inputs."""

    def __init__(self, config: NestedConfig) -> None:
        self.kind, self.groups = config.norm, config.norm_groups
        self.learned = config.gate == "sigmoid"
        self.weight, self.dropout = config.nested_weight, config.nested_dropout
        if _WIDTHS[0] % self.groups:
            raise ConfigError(
                f"norm_groups={self.groups} does not divide the 32 channels of the first map",
                fix="use 1, 2, 4, 8, 16 or 32",
            )

    def norm(self, channels: int, *, mixing: bool = False) -> nn.Module:
        """mixing: after the 1x1 convolutions of a level (nested input and main path)."""
        if self.kind == "group" or (self.kind == "mixed" and mixing):
            return nn.GroupNorm(self.groups, channels)
        return nn.BatchNorm2d(channels)


class NestedInput(nn.Module):
    """gate * P for the input of a level: (B, sum of C, H, W) -> (B, C, H, W)."""

    def __init__(self, in_channels: int, channels: int, parts: Parts) -> None:
        super().__init__()
        self.learned = parts.learned
        self.constant = parts.weight
        if self.learned:
            self.weight = nn.Parameter(torch.tensor(parts.weight))
        self.conv = nn.Conv2d(in_channels, channels, 1)
        self.norm = parts.norm(channels, mixing=True)
        self.dropout = nn.Dropout2d(parts.dropout)

    def forward(self, earlier: Tensor) -> Tensor:
        gate = torch.sigmoid(self.weight) if self.learned else self.constant
        x = functional.relu(self.norm(self.conv(earlier)), inplace=True)
        return gate * self.dropout(x)


class Level(nn.Module):
    """(B, C, H, W) -> (B, 2 C, H', W'): nested input, depthwise and 1x1 convolution, SE, add."""

    def __init__(
        self, in_channels: int, stride: int, earlier_channels: int | None, parts: Parts
    ) -> None:
        super().__init__()
        channels = 2 * in_channels
        self.nested: NestedInput | None = None
        if earlier_channels is not None:
            self.nested = NestedInput(earlier_channels, in_channels, parts)
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride=stride, padding=1, groups=in_channels, bias=False
        )
        self.depthwise_norm = parts.norm(in_channels)
        self.pointwise = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.pointwise_norm = parts.norm(channels, mixing=True)
        self.se = SqueezeExcitation(channels, bias=False)
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), parts.norm(channels)
        )

    def forward(self, x: Tensor, earlier: Tensor | None = None) -> Tensor:
        y = x if self.nested is None else x + self.nested(earlier)
        y = functional.relu(self.depthwise_norm(self.depthwise(y)), inplace=True)
        y = functional.relu(self.pointwise_norm(self.pointwise(y)), inplace=True)
        return self.se(y).add_(self.shortcut(x))


class Fusion(nn.Module):
    """Maps (B, C_i, H, W) of one size -> (B, C, H, W)."""

    def __init__(self, kind: str, widths: tuple[int, ...], channels: int, parts: Parts) -> None:
        super().__init__()
        self.gates: nn.ModuleList | None = None
        if kind == "attention":
            self.gates = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in widths)
        inputs = widths if kind == "sum" else (sum(widths),)
        self.convs = nn.ModuleList(nn.Conv2d(n, channels, 1, bias=False) for n in inputs)
        self.norms = nn.ModuleList(parts.norm(channels) for _ in inputs)

    def forward(self, maps: list[Tensor]) -> Tensor:
        if self.gates is not None:
            means = [x.mean(dim=(2, 3), keepdim=True) for x in maps]
            weights = [torch.sigmoid(g(mean)) for g, mean in zip(self.gates, means, strict=True)]
            maps = [x * weight for x, weight in zip(maps, weights, strict=True)]
        if len(self.convs) == 1:
            maps = [torch.cat(maps, dim=1)]
        each = zip(self.convs, self.norms, maps, strict=True)
        fused = sum(norm(conv(x)) for conv, norm, x in each)
        assert isinstance(fused, Tensor)
        return functional.relu(fused, inplace=True)


_original_name = renamer(
    [
        (r"^stem\.", r"input_conv.0."),
        (r"^stem_norm\.", r"input_conv.1."),
        (r"\.nested\.weight$", r".nested_weight"),
        (r"\.nested\.conv\.", r".prev_aggregator.0."),
        (r"\.nested\.norm\.", r".prev_aggregator.1."),
        (r"\.depthwise\.", r".conv1.0."),
        (r"\.depthwise_norm\.", r".conv1.1."),
        (r"\.pointwise\.", r".conv2.0."),
        (r"\.pointwise_norm\.", r".conv2.1."),
        (r"\.se\.reduce\.", r".se.fc.0."),
        (r"\.se\.expand\.", r".se.fc.2."),
        (r"\.shortcut\.", r".residual."),
        (r"^fusion\.gates\.(\d)\.", r"fusion_attention.\1.1."),
        (r"^fusion\.convs\.0\.", r"fusion.0."),
        (r"^fusion\.norms\.0\.", r"fusion.1."),
        (r"^pooling\.frames\.attention$", r"attention"),
        (r"^pooling\.frames\.linear\.", r"sap_linear."),
        (r"^embedding\.", r"fc."),
    ]
)


@register_model("nested_original", NestedOriginalConfig, parity=_REBUILT)
@register_model("nested_report004", NestedReport004Config, parity=_REBUILT)
@register_model(
    "nested",
    NestedConfig,
    parity=golden(
        "dim_nested_4level_sap",
        "dim_nested_4level_asp",
        "dim_nested_3level_sap",
        "dim_nested_5level_asp",
        "dim_nested_4level_sap_attention",
    ),
)
class NestedSpeakerNet(nn.Module):
    """(B, F, T) normalised log-mel features -> (B, D) embeddings, not normalised; T >= 8 frames.

    Published code of 2025, see above.
    """

    reference = "dimuthuanuraj/voxceleb_trainer, 2025"
    task = "speaker"
    input = "features"
    min_frames = 8
    window_seconds = None
    unused_parameters = ()
    heavy_blocks = ("levels",)
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

    def __init__(self, config: NestedConfig, num_features: int) -> None:
        super().__init__()
        self.embedding_size, self.num_features = config.embedding_size, num_features
        self.alignment, self.fusion_alignment = config.alignment, config.fusion_alignment
        count, nested, fusion = config.num_levels, chosen_levels(config), config.fusion
        widths = _WIDTHS[: count + 1]
        parts = Parts(config)
        self.stem = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
        self.stem_norm = parts.norm(widths[0])
        self.levels = nn.ModuleList(
            Level(
                widths[i],
                stride=2 if i < 3 else 1,
                earlier_channels=sum(widths[1 : i + 1]) if i + 1 in nested else None,
                parts=parts,
            )
            for i in range(count)
        )
        self.fusion: Fusion | None = None
        if fusion != "none":
            self.fusion = Fusion(fusion, widths, widths[-1], parts)
        self.pooling = (
            SelfAttentivePooling(widths[-1])
            if config.pooling == "sap"
            else AttentiveStatisticsPooling(widths[-1])
        )
        self.embedding = nn.Linear(self.pooling.output_size, config.embedding_size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        require_features(features, self.num_features, self.min_frames)
        x = functional.relu(self.stem_norm(self.stem(features[:, None])), inplace=True)
        maps = [x]  # of the stem and of every level
        ready: dict[tuple[int, torch.Size, str], Tensor] = {}  # resized once for all who need it

        def in_size(index: int, size: torch.Size, kind: Alignment) -> Tensor:
            key = (index, size, kind)
            if key not in ready:
                ready[key] = resized(maps[index], size, kind)
            return ready[key]

        for level in self.levels:
            earlier = None
            if level.nested is not None:
                size, indices = x.shape[2:], range(1, len(maps))
                earlier = torch.cat([in_size(i, size, self.alignment) for i in indices], dim=1)
            x = level(x, earlier)
            maps.append(x)
        if self.fusion is not None:
            size = x.shape[2:]
            x = self.fusion([in_size(i, size, self.fusion_alignment) for i in range(len(maps))])
        with no_autocast(x):
            return self.embedding(self.pooling(at_least_float32(x).mean(dim=2)))

    def statistics(self) -> dict[str, Tensor]:
        """The learned gates for the log, detached scalars: ``nested_raw_3``, ``nested_gate_3`` ...

        raw: the number that is learned.  gate: its sigmoid, the factor that acts.
        """
        result: dict[str, Tensor] = {}
        for number, level in enumerate(self.levels, start=1):
            assert isinstance(level, Level)
            if level.nested is not None and level.nested.learned:
                raw = level.nested.weight.detach()
                result[f"nested_raw_{number}"] = raw
                result[f"nested_gate_{number}"] = torch.sigmoid(raw)
        return result

    original_name = staticmethod(_original_name)

    original_for = ("nested",)
    original_prefixes = ("module.", "__S__.")
    original_extras = ("torchfb.*", "__L__.*")

    @staticmethod
    def original_options(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options and front-end options that the shapes in a checkpoint imply."""
        options: dict[str, Any] = {}
        features: dict[str, Any] = {}
        found = [re.match(r"levels\.(\d)\.(nested_weight)?", name) for name in state]
        levels = {int(match[1]) + 1 for match in found if match}
        if levels:
            options["num_levels"] = max(levels)
            options["nested_levels"] = sorted(int(m[1]) + 1 for m in found if m and m[2])
        if "fc.weight" in state and "attention" in state:
            size, pooled = state["fc.weight"].shape
            options["embedding_size"] = size
            options["pooling"] = "sap" if pooled == state["attention"].shape[0] else "asp"
        if "fusion_attention.0.1.weight" in state:
            options["fusion"] = "attention"
        if "torchfb.mel_scale.fb" in state:
            features["num_mels"] = state["torchfb.mel_scale.fb"].shape[1]
        return options, features


def chosen_levels(config: NestedConfig) -> tuple[int, ...]:
    """The numbers of the levels with a nested input; raises `ConfigError` for impossible ones."""
    wanted, count = config.nested_levels, config.num_levels
    if isinstance(wanted, str):
        return tuple(range(2 if wanted == "all" else 3, count + 1))
    wrong = [level for level in wanted if not 2 <= level <= count]
    if wrong or len(set(wanted)) != len(wanted):
        raise ConfigError(
            f"nested_levels={list(wanted)}, but the network has levels 1 to {count}",
            why="level 1 has no earlier level; the others can be nested once each",
            fix=f"choose from 2 to {count}; [] for none",
        )
    return tuple(wanted)
