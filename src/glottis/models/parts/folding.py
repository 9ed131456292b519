"""A batch norm right behind a convolution, in eval mode, is part of the convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def folded(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the layer that does what ``weight``, ``bias`` and ``norm`` do in eval."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None  # noqa: PT018
    gain = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = -mean if bias is None else bias - mean
    return weight * gain.view(-1, *[1] * (weight.ndim - 1)), norm.bias + gain * shift


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """norm(conv(x)); in eval mode as one convolution, which is the same and saves a pass."""
    if norm.training or not isinstance(conv, nn.Conv2d):  # with an adapter beside it
        return norm(conv(x))
    weight, bias = folded(conv.weight, conv.bias, norm)
    return functional.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
