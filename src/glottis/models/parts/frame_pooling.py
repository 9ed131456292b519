"""Pooling with one weight per frame from a two-layer attention: (B, C, T) -> (B, C) or (B, 2 C).

Okabe et al., "Attentive statistics pooling for deep speaker embedding", Interspeech 2018, equations
2 to 6.  It differs from `glottis.models.parts.pooling.AttentiveStatisticsPooling` in the second
layer, which has a bias, and in the variance: a mean of squares, E[(x - mean)^2], where a difference
of two means would lose the small values that these networks allow.

Shapes: B batch, C channels, T frames.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from glottis.models.parts.pooling import (
    frame_mask,
    masked_softmax,
    real,
    weighted_statistics,
)
from glottis.models.parts.precision import at_least_float32, no_autocast


class FramePooling(nn.Module):
    """Weighted mean, and standard deviation if ``deviation``, in float32; T >= 1.

    The weights are softmax over T of expand(activation(reduce(x))), ``hidden`` units between.
    min_variance: the least variance whose root is taken.  lengths (B,): the real frames.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        activation: Literal["relu", "tanh"],
        *,
        deviation: bool = True,
        min_variance: float = 1e-5,
    ) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, hidden)
        self.activation = torch.relu if activation == "relu" else torch.tanh
        self.expand = nn.Linear(hidden, 1)
        self.deviation, self.min_variance = deviation, min_variance
        self.output_size = channels * (2 if deviation else 1)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        with no_autocast(x):
            x = real(at_least_float32(x), lengths)
            scores = self.expand(self.activation(self.reduce(x.transpose(1, 2))))  # (B, T, 1)
            weights = masked_softmax(scores.transpose(1, 2), frame_mask(x, lengths))
            if not self.deviation:
                return (x * weights).sum(dim=-1)
            return weighted_statistics(x, weights, self.min_variance, centred=True)
