"""Squeeze and excitation.  Hu et al., "Squeeze-and-excitation networks", CVPR 2018, section 3."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Multiply every channel by a gate computed from all channel means.

    (B, C, F, T) -> same, or (B, C, T) -> same.
    gate = sigmoid(W2 relu(W1 mean(x) + b1) + b2), with C / ``reduction`` hidden units, or
    ``hidden`` of them.  bias: whether there are b1 and b2.
    """

    def __init__(
        self, channels: int, reduction: int = 8, *, hidden: int | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        hidden = max(1, channels // reduction) if hidden is None else hidden
        self.reduce = nn.Linear(channels, hidden, bias=bias)
        self.expand = nn.Linear(hidden, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(2, x.ndim))
        gate = torch.sigmoid(self.expand(torch.relu(self.reduce(x.mean(dim=axes)))))
        return x * gate[(...,) + (None,) * len(axes)]
