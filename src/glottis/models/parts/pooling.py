"""Attentive pooling over time: (B, C, T) -> (B, C) or (B, 2 C), always in float32.

Self-attentive pooling (SAP): Cai et al., "Exploring the encoding layer and loss function in
end-to-end speaker and language recognition system", Odyssey 2018.  Attentive statistics
(ASP): Okabe et al., "Attentive statistics pooling for deep speaker embedding", Interspeech 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glottis.models.parts.precision import at_least_float32, no_autocast


def weighted_statistics(x: Tensor, weights: Tensor, min_variance: float = 1e-5) -> Tensor:
    """(B, C, T) and weights over T that add up to 1 -> mean | standard deviation (B, 2 C).

    The variance E[x^2] - mean^2 is kept above ``min_variance``: its square root has a slope.
    """
    mean = (x * weights).sum(dim=-1)
    variance = (x.square() * weights).sum(dim=-1) - mean.square()
    return torch.cat([mean, variance.clamp_min(min_variance).sqrt()], dim=-1)


class FrameAttention(nn.Module):
    """One weight per frame: softmax over T of tanh(W x + b) . a;  (B, C, T) -> (B, 1, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Parameter(torch.empty(channels, 1))
        self.linear = nn.Linear(channels, channels)
        nn.init.xavier_normal_(self.attention)

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.tanh(self.linear(x.transpose(1, 2))) @ self.attention  # (B, T, 1)
        return torch.softmax(scores, dim=1).transpose(1, 2)


class SelfAttentivePooling(nn.Module):
    """Weighted mean over time: (B, C, T) -> (B, C), T >= 1; float32 under autocast."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frames = FrameAttention(channels)
        self.output_size = channels

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x):
            x = at_least_float32(x)
            return (x * self.frames(x)).sum(dim=-1)


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean | standard deviation: (B, C, T) -> (B, 2 C), T >= 1; float32 under autocast."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frames = FrameAttention(channels)
        self.output_size = 2 * channels

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x):
            x = at_least_float32(x)
            return weighted_statistics(x, self.frames(x))
