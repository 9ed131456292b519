"""Res2Net-50 and SE-Res2Net-50 as countermeasures: channel groups that hear one another.

Li, Li, Weng, Liu, Su, Yu and Meng, "Replay and synthetic speech detection with Res2Net
architecture", ICASSP 2021 (arXiv 2010.15006), in the 26w x 4s form of the authors' released code.
Block: Gao et al., "Res2Net: a new multi-scale backbone architecture", IEEE TPAMI 2021;
squeeze-excitation: Hu et al., CVPR 2018.

The parameter table of the paper could not be consulted.  The counts, 883,806 and 923,102, are those
that follow from the layer sizes of the released code; they are not checked against a printed
number.

Worth knowing:
- the stem keeps the size of the map: the first stage works at full resolution and costs most;
- in the first block of a stage the groups do not hear one another, and the group that is not
  convolved is averaged over 3x3 instead;
- the paper's best features are constant-Q spectra; its comparison of networks on logical access,
  from which the default front end is taken, uses 60 LFCC;
- the network hears 400 frames; the published score of a longer utterance is the mean over pieces
  of 400 frames, that of a model here comes from the first 400;
- the logits are log probabilities, so that the score is the published one.

What differs from the released code, none of it in the result: a batch norm in eval mode is part of
the convolution before it, and the groups are joined once.  Average over the map and classifier are
float32 under autocast.

Initialisation: convolutions Kaiming normal (fan-out, ReLU), batch norms 1 and 0, linear layers as
torch does.  Shapes: B batch, F features, T frames, C channels, D embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.errors import ModelError
from glottis.models._interface import SpoofOutput, require_features
from glottis.models._parity import ours
from glottis.models._registry import register_model
from glottis.models.parts.classifier import LogOdds
from glottis.models.parts.folding import conv_norm
from glottis.models.parts.pooling import TemporalAveragePooling
from glottis.models.parts.precision import at_least_float32, no_autocast
from glottis.models.parts.squeeze import SqueezeExcitation

_EXPANSION = 2  # channels between blocks over channels of a stage


class Res2NetCmConfig(Config):
    """Res2Net-50 as a countermeasure (883,806 parameters)."""

    num_blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    """blocks of the four stages"""
    channels: int = Field(16, ge=3)
    """of the first stage, each further one has twice as many"""
    width: int = Field(26, ge=1)
    """channels of a group, in 64ths of the channels of the stage, rounded down"""
    scale: int = Field(4, ge=2)
    """groups of channels in a block"""
    reduction: int | None = Field(None, ge=1)
    """channels over hidden units of the squeeze-excitation; null: none"""


class SeRes2NetCmConfig(Res2NetCmConfig):
    """SE-Res2Net-50 as a countermeasure (923,102 parameters)."""

    reduction: int | None = Field(16, ge=1)
    """channels over hidden units of the squeeze-excitation; null: none"""


class ConvUnit(nn.Module):
    """(B, C, F, T) -> (B, C', F', T'): convolution without bias - norm - ReLU."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(conv_norm(x, self.conv, self.norm), inplace=True)


class Shortcut(nn.Module):
    """(B, C, F, T) -> (B, C', F', T'): average over what becomes one place, 1x1, norm."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:  # at an odd edge, the average of what there is
            x = functional.avg_pool2d(x, self.stride, ceil_mode=True, count_include_pad=False)
        return conv_norm(x, self.conv, self.norm)


class Res2Block(nn.Module):
    """(B, C, F, T) -> (B, 2 C', F', T'): 1x1, groups with 3x3 each, 1x1, (SE), add, ReLU.

    y_i = ReLU(norm_i(conv_i(x_i + y_(i-1)))) for all groups x_i but the last, which stays as it is.
    first: first block of a stage, where y_i = ReLU(norm_i(conv_i(x_i))), with a stride, and the
    last group is averaged over 3x3.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        config: Res2NetCmConfig,
        *,
        first: bool,
    ) -> None:
        super().__init__()
        group, outside = channels * config.width // 64, _EXPANSION * channels
        if group == 0:
            raise ModelError(
                f"a width of {config.width} leaves no channels in a group of {channels} channels",
                fix="use more channels or a larger width",
            )
        self.first, self.stride, self.group = first, stride, group
        inside = group * config.scale
        self.reduce = ConvUnit(in_channels, inside, 1)
        self.scales = nn.ModuleList(
            ConvUnit(group, group, 3, stride) for _ in range(config.scale - 1)
        )
        self.expand = nn.Conv2d(inside, outside, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(outside)
        self.se: SqueezeExcitation | None = None
        if config.reduction is not None:
            self.se = SqueezeExcitation(outside, config.reduction, bias=False)
        self.shortcut: Shortcut | None = None
        if first:
            self.shortcut = Shortcut(in_channels, outside, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat(self._heard(self.reduce(x)), dim=1)
        y = conv_norm(y, self.expand, self.expand_norm)
        y = y if self.se is None else self.se(y)
        y = y.add_(x if self.shortcut is None else self.shortcut(x))
        return functional.relu(y, inplace=True)

    def _heard(self, x: Tensor) -> list[Tensor]:
        """The groups of (B, scale G, F, T), each heard at its scale: (B, G, F', T') each."""
        groups = x.split(self.group, dim=1)
        heard: list[Tensor] = []
        for group, scale in zip(groups, self.scales, strict=False):
            heard.append(scale(group if self.first or not heard else group + heard[-1]))
        last = groups[-1]
        if self.first:
            last = functional.avg_pool2d(last, 3, stride=self.stride, padding=1)
        return [*heard, last]


_PARITY = ours("as many parameters as the layer sizes of the released code; no printed count seen")


@register_model("se_res2net50_cm", SeRes2NetCmConfig, parity=_PARITY)
@register_model("res2net50_cm", Res2NetCmConfig, parity=_PARITY)
class Res2NetCm(nn.Module):
    """(B, F, T) features -> embedding (B, D) and log probabilities (B, 2); T >= 1 frame.

    Li et al., ICASSP 2021.  D is 16 times the channels of the first stage.
    """

    reference = "Li et al., ICASSP 2021"
    task = "spoof"
    input = "features"
    min_frames = 1
    window_seconds = 399 * 160 / 16000
    unused_parameters = ()
    heavy_blocks = ("stages.0", "stages.1", "stages.2", "stages.3")
    default_features: dict[str, Any] = {  # noqa: RUF012
        "name": "lfcc",
        "window_samples": 320,
        "hop_samples": 160,
        "fft_size": 512,
        "num_filters": 20,
        "num_coefficients": 20,
        "delta_orders": 2,
    }

    def __init__(self, config: Res2NetCmConfig, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        width = config.channels
        self.stem = nn.Sequential(*(ConvUnit(before, width, 3) for before in (1, width, width)))
        stages = []
        for index, count in enumerate(config.num_blocks):
            channels = config.channels * 2**index
            blocks = []
            for number in range(count):
                stride = 2 if index > 0 and number == 0 else 1
                blocks.append(Res2Block(width, channels, stride, config, first=number == 0))
                width = _EXPANSION * channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.embedding_size = width
        self.pooling = TemporalAveragePooling(width)
        self.classifier = LogOdds(width, 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> SpoofOutput:
        require_features(features, self.num_features, self.min_frames)
        x = self.stages(self.stem(features[:, None]))  # (B, D, F / 8, T / 8)
        with no_autocast(x):
            embedding = self.pooling(at_least_float32(x).mean(dim=2))
            return SpoofOutput(embedding, self.classifier(embedding))
