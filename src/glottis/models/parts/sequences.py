"""The blocks that ReDimNet puts over time: depthwise convolutions and attention at reduced width.

Sequences are (B, T, C).  A depthwise convolution over time sees its sequence as an image of one
row, (B, C, 1, T) in channels-last layout: up to thirty times as fast on a CPU as a convolution in
one dimension, which torch computes channel by channel.

Shapes: B batch, T frames, C channels, H hidden channels.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.models.parts.folding import folded
from glottis.models.parts.maps import Pointwise, normed, plus

Core = Literal["att", "conv+att"]

NORM_EPS = 1e-6
NUM_HEADS = 4
_KERNELS = (7, 19, 31, 59)  # frames seen by the four convolutions of "conv+att"


class _RowGradient(torch.autograd.Function):
    """x itself, whose gradient is put into the order of (B, T, C) whatever order it comes in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


def channels_first(x: Tensor) -> Tensor:
    """(B, T, C) -> (B, C, T), a view.

    The gradient of layers behind it comes back as (B, C, T) in memory; left so, every sum and
    product it meets on its way through the stages would run across that order.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        x = _RowGradient.apply(x)
    return x.transpose(1, 2)


class TimeConv(nn.Conv2d):
    """Depthwise convolution over time, odd kernel: (B, T, C) -> same."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, (1, kernel), padding=(0, kernel // 2), groups=channels)

    def forward(self, x: Tensor, norm: nn.BatchNorm2d | None = None) -> Tensor:
        """norm: the batch norm that follows, if any."""
        weight, bias = self.weight, self.bias
        if norm is not None and not norm.training:
            weight, bias = folded(weight, bias, norm)
        row = x.transpose(1, 2)[:, :, None]  # (B, C, 1, T)
        y = functional.conv2d(row, weight, bias, padding=self.padding, groups=self.groups)
        y = y[:, :, 0].transpose(1, 2)
        return normed(norm, y) if norm is not None and norm.training else y


class TimeNextBlock(nn.Module):
    """(B, T, C) -> same: depthwise convolution - norm - GELU - 1x1 convolution - add."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = TimeConv(channels, kernel)
        self.norm = nn.BatchNorm2d(channels)
        self.pointwise = Pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.gelu(self.conv(x, self.norm))
        return plus(self.pointwise(y), x)


class TimePosition(nn.Module):
    """(B, T, C) -> same: x + norm(depthwise convolution of 59 frames), a position in context."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.position = TimeConv(channels, 59)
        self.norm = nn.LayerNorm(channels, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.position(x))


class TransformerLayer(nn.Module):
    """(B, T, C) -> same: attention of four heads and a feed-forward pair, norms after the sums.

    Vaswani et al., "Attention is all you need", NIPS 2017, with the tanh form of GELU.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.norm1 = nn.LayerNorm(channels, NORM_EPS)
        self.up = nn.Linear(channels, hidden)
        self.down = nn.Linear(hidden, channels)
        self.norm2 = nn.LayerNorm(channels, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(2, (NUM_HEADS, -1)).transpose(1, 2)  # (B, heads, T, C / heads)
            for layer in (self.query, self.key, self.value)
        )
        heads = functional.scaled_dot_product_attention(query, key, value)
        x = self.norm1(x + self.output(heads.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.down(functional.gelu(self.up(x), approximate="tanh")))


class TimeBlock(nn.Module):
    """(B, T, C) -> same: down to H channels, layers over time, up again, add the input."""

    def __init__(self, channels: int, hidden: int, core: Core) -> None:
        super().__init__()
        self.reduce = Pointwise(channels, hidden)
        self.norm = nn.LayerNorm(hidden, NORM_EPS)
        if core == "att":
            layers = [TimePosition(hidden), TransformerLayer(hidden, 2 * hidden)]
        else:
            layers = [TimeNextBlock(hidden, kernel) for kernel in _KERNELS]
            layers.append(TransformerLayer(hidden, hidden))
        self.core = nn.Sequential(*layers)
        self.expand = Pointwise(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return plus(self.expand(self.core(self.norm(self.reduce(x)))), x)
