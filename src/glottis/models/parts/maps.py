"""Layers for maps that are kept as (B, T, F, C): time, frequency, channels last.

In this order the same memory is the map of F bins and C channels, and the sequence (B, T, F C) in
which bin f, channel c is the value f C + c: nothing is moved between convolutions in two dimensions
and layers over time.  A convolution sees such a map as (B, C, T, F) in channels-last layout, in
which grouped convolutions are several times as fast on a CPU as in the usual one; a 1x1 convolution
is a matrix product.

Convolutions and products take the batch norm that follows them: in eval mode it is folded into
their weights, which is the same and saves a pass over the map.

Shapes: B batch, T frames, F bins, C channels, N everything but the channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.models.parts.folding import folded
from glottis.models.parts.precision import at_least_float32, no_autocast

Pair = tuple[int, int]
"""frequency, time"""


def normed(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """``norm`` over the last axis of (..., C): all other axes are one long row of values.

    In training on a CPU, torch adds the values of a channel up one by one in float32: its mean and
    deviation are good to 1e-5 (20,000 values) or 5e-4 (a million).  No such sums in eval mode.
    """
    row = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # (1, C, 1, N), channels last
    return norm(row).permute(0, 2, 3, 1).view(x.shape)


def plus(y: Tensor, x: Tensor) -> Tensor:
    """y + x; without gradients into the memory of ``y``, which is used for nothing else."""
    # in place on a view, autograd would copy its base
    return y + x if torch.is_grad_enabled() else y.add_(x)


def rectified(y: Tensor) -> Tensor:
    """ReLU; without gradients into the memory of ``y``, which is used for nothing else."""
    return torch.relu(y) if torch.is_grad_enabled() else torch.relu_(y)


class Pointwise(nn.Linear):
    """A 1x1 convolution of a map: (..., C) -> (..., C')."""

    def forward(self, x: Tensor, norm: nn.BatchNorm2d | None = None) -> Tensor:
        """norm: the batch norm that follows, if any."""
        if norm is None:
            return functional.linear(x, self.weight, self.bias)
        if norm.training:
            return normed(norm, functional.linear(x, self.weight, self.bias))
        return functional.linear(x, *folded(self.weight, self.bias, norm))


class MapConv(nn.Conv2d):
    """A convolution of a map: (B, T, F, C) -> (B, T', F', C'); kernel and stride: (F, T)."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: Pair = (3, 3),
        *,
        stride: Pair = (1, 1),
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        edges = (kernel[0] // 2, kernel[1] // 2) if stride == (1, 1) else (0, 0)
        super().__init__(
            in_channels, channels, kernel, stride=stride, padding=edges, groups=groups, bias=bias
        )
        self.edges = edges

    def forward(self, x: Tensor, norm: nn.BatchNorm2d | None = None) -> Tensor:
        """norm: the batch norm that follows, if any."""
        weight, bias = self.weight, self.bias
        if norm is not None and not norm.training:
            weight, bias = folded(weight, bias, norm)
        bins, frames = self.stride
        y = functional.conv2d(
            x.permute(0, 3, 1, 2),
            weight.transpose(2, 3),  # stored as published: (F, T)
            bias,
            stride=(frames, bins),
            padding=(self.edges[1], self.edges[0]),
            groups=self.groups,
        ).permute(0, 2, 3, 1)
        return normed(norm, y) if norm is not None and norm.training else y


class MergeBins(nn.Conv2d):
    """A convolution with kernel and stride (s, 1): (B, T, F, C) -> (B, T, F / s, C').

    s neighbouring bins are next to each other in memory: one matrix product, nothing is gathered.
    """

    def __init__(self, in_channels: int, channels: int, num_bins: int) -> None:
        super().__init__(in_channels, channels, (num_bins, 1), stride=(num_bins, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, bins, channels = x.shape
        merged = self.stride[0]
        weight = self.weight[..., 0].transpose(1, 2).flatten(1)  # (C', s C)
        rows = x.reshape(batch, frames, bins // merged, merged * channels)
        return functional.linear(rows, weight, self.bias)


def num_groups(channels: int, group_channels: int) -> int:
    """Groups of at least ``group_channels`` channels, 12 channels in groups of 8: one group."""
    return channels // group_channels


class FrequencyGate(nn.Module):
    """Multiply every bin by a gate computed from the means of all bins: (B, T, F, C) -> same.

    Thienpondt, Desplanques and Demuynck, "Integrating frequency translational invariance in TDNNs
    and frequency positional information in 2D ResNets", Interspeech 2021 (fwSE).
    """

    def __init__(self, num_bins: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(num_bins, hidden)
        self.expand = nn.Linear(hidden, num_bins)

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x):
            means = at_least_float32(x).mean(dim=(1, 3))
            gate = torch.sigmoid(self.expand(torch.relu(self.reduce(means))))
        return x * gate[:, None, :, None].to(x.dtype)


class NextBlock(nn.Module):
    """(B, T, F, C) -> same: grouped convolution - norm - GELU - 1x1 convolution - add.

    After Liu et al., "A ConvNet for the 2020s", CVPR 2022, without its expansion.
    """

    def __init__(self, channels: int, group_channels: int) -> None:
        super().__init__()
        self.conv = MapConv(channels, channels, groups=num_groups(channels, group_channels))
        self.norm = nn.BatchNorm2d(channels)
        self.pointwise = Pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.gelu(self.conv(x, self.norm))
        return plus(self.pointwise(y), x)


class SeparableResidualBlock(nn.Module):
    """(B, T, F, C) -> same: (grouped 3x3, 1x1, ReLU, norm), (grouped 3x3, 1x1, norm), add, ReLU.

    The ReLU comes before the first norm.  gate: acts before the addition.
    """

    def __init__(
        self, channels: int, group_channels: int, gate: FrequencyGate | None = None
    ) -> None:
        super().__init__()
        groups = num_groups(channels, group_channels)
        self.conv1 = MapConv(channels, channels, groups=groups, bias=False)
        self.pointwise1 = Pointwise(channels, channels)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = MapConv(channels, channels, groups=groups, bias=False)
        self.pointwise2 = Pointwise(channels, channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        y = normed(self.norm1, rectified(self.pointwise1(self.conv1(x))))
        y = self.pointwise2(self.conv2(y), self.norm2)
        if self.gate is not None:
            y = self.gate(y)
        return rectified(plus(y, x))
