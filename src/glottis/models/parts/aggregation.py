"""Weighted sums of the outputs of earlier stages, with a weight per stage and channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerAggregation(nn.Module):
    """N sequences (B, T_n, C) -> their sum (B, T, C), weighted by a softmax over N per channel.

    The weights start at zero: the mean.  The first sequence has all T frames; one with T / s frames
    stands for each of its frames s times, which is added without being written out.
    A single sequence is returned as it is; its weight, ``shape`` (1, 1, channels or 1, 1), is kept
    for the sake of published checkpoints and asks for no gradient.
    """

    def __init__(self, num_inputs: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, num_inputs, channels, 1))
        self.weight.requires_grad_(num_inputs > 1)

    def forward(self, *sequences: Tensor) -> Tensor:
        if len(sequences) == 1:
            return sequences[0]
        weights = torch.softmax(self.weight[0, :, :, 0], dim=0).to(sequences[0].dtype)
        total = sequences[0] * weights[0]
        frames = total.shape[1]
        for sequence, weight in zip(sequences[1:], weights[1:], strict=True):
            repeats = frames // sequence.shape[1]
            if repeats == 1:
                total.addcmul_(sequence, weight)
            else:
                groups = total.unflatten(1, (-1, repeats))
                total = torch.addcmul(groups, sequence[:, :, None], weight).flatten(1, 2)
        return total
