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
        for sequence, weight in zip(sequences[1:], weights[1:], strict=True):
            total = _plus_weighted(total, sequence, weight)
        return total


def _plus_weighted(total: Tensor, sequence: Tensor, weight: Tensor) -> Tensor:
    """total + weight * sequence, in the memory of ``total``; short sequences stand for more frames.

    total: (B, T, C).  sequence: (B, T / s, C).  weight: (C,).
    """
    repeats = total.shape[1] // sequence.shape[1]
    if repeats > 1:
        groups = total.unflatten(1, (-1, repeats))
        if torch.is_grad_enabled():  # out of place: on a view, autograd would copy its base
            return (groups + (sequence * weight)[:, :, None]).flatten(1, 2)
        groups.addcmul_(sequence[:, :, None], weight)
        return total
    if torch.is_grad_enabled():  # the gradient of addcmul_ makes one more pass
        return total.add_(sequence * weight)
    return total.addcmul_(sequence, weight)
