"""Residual blocks on maps, plain or with squeeze-excitation, and the four stages of a ResNet.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, figure 5 and
table 1; Hu, Shen and Sun, "Squeeze-and-excitation networks", CVPR 2018, figure 3.
In eval mode batch norms are folded into the convolutions before them.
Shapes: B batch, C channels, F features, T frames.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from glottis.models.parts.folding import conv_norm
from glottis.models.parts.squeeze import SqueezeExcitation

EXPANSION = 4
"""channels between bottlenecks over channels inside"""


class Shortcut(nn.Sequential):
    """norm(conv 1x1) where a block changes channels or rate: (B, C, F, T) -> (B, C', F', T')."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        conv = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
        norm = nn.BatchNorm2d(channels)
        super().__init__(conv, norm)

    def forward(self, x: Tensor) -> Tensor:
        conv: Any = self[0]  # also one with an adapter beside it
        norm = self[1]
        assert isinstance(norm, nn.BatchNorm2d)
        return conv_norm(x, conv, norm)


class BasicBlock(nn.Module):
    """(B, C, F, T) -> (B, C', F', T'): conv - norm - ReLU - conv - norm - (SE) - add - ReLU."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, reduction: int | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.se = None if reduction is None else SqueezeExcitation(channels, reduction)
        changes = stride != 1 or in_channels != channels
        self.shortcut = Shortcut(in_channels, channels, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(conv_norm(x, self.conv1, self.norm1), inplace=True)
        y = conv_norm(y, self.conv2, self.norm2)
        y = y if self.se is None else self.se(y)
        y = y.add_(x if self.shortcut is None else self.shortcut(x))
        return functional.relu(y, inplace=True)


class BottleneckBlock(nn.Module):
    """(B, C, F, T) -> (B, 4 C', F', T'): 1x1 - 3x3 - 1x1, each with its norm, (SE), add, ReLU."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, reduction: int | None = None
    ) -> None:
        super().__init__()
        wide = EXPANSION * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, wide, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(wide)
        self.se = None if reduction is None else SqueezeExcitation(wide, reduction)
        changes = stride != 1 or in_channels != wide
        self.shortcut = Shortcut(in_channels, wide, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(conv_norm(x, self.conv1, self.norm1), inplace=True)
        y = functional.relu(conv_norm(y, self.conv2, self.norm2), inplace=True)
        y = conv_norm(y, self.conv3, self.norm3)
        y = y if self.se is None else self.se(y)
        y = y.add_(x if self.shortcut is None else self.shortcut(x))
        return functional.relu(y, inplace=True)


def residual_stages(
    num_blocks: tuple[int, ...],
    channels: int,
    rows: int,
    *,
    bottleneck: bool,
    reduction: int | None = None,
) -> tuple[nn.Sequential, int, int]:
    """The stages, the channels they give and the rows they leave of ``rows``.

    Each stage has twice the channels of the one before; all but the first halve both axes in their
    first block.  reduction: of the squeeze-excitation, None for none.
    """
    block = BottleneckBlock if bottleneck else BasicBlock
    width, stages = channels, []
    for index, count in enumerate(num_blocks):
        stride = 1 if index == 0 else 2
        blocks: list[nn.Module] = []
        for number in range(count):
            inside = channels * 2**index
            blocks.append(block(width, inside, stride if number == 0 else 1, reduction))
            width = inside * (EXPANSION if bottleneck else 1)
        stages.append(nn.Sequential(*blocks))
        rows = -(-rows // stride)
    return nn.Sequential(*stages), width, rows
