"""Conformer blocks: half a feed-forward, attention, a convolution over time, half a feed-forward.

Gulati et al., "Conformer: convolution-augmented transformer for speech recognition", Interspeech
2020, section 2, as the public PyTorch package `conformer` computes it, which the published
countermeasures use: positions are differences of up to ``max_distance`` frames, each with a learned
vector (Shaw et al., "Self-attention with relative position representations", NAACL 2018, keys
only), and the convolution module has twice the channels inside.

The position scores are one product with the vectors of all differences and a change of view, where
the package gathers a vector for every pair of frames.  Attention is float32 under autocast.

Every block takes ``mask``, (B, T) bool: which frames are real; what is behind them changes nothing
in eval mode (batch norms in training see it).  None means all.

Initialisation: as torch does; position vectors are standard normal.
Shapes: B batch, T frames, C channels, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.models.parts.precision import at_least_float32, no_autocast
from glottis.models.parts.sequences import TimeConv


class FeedForward(nn.Module):
    """(B, T, C) -> same: norm - to ``expansion`` C channels - swish - back."""

    def __init__(self, channels: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, expansion * channels)
        self.down = nn.Linear(expansion * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(functional.silu(self.up(self.norm(x)), inplace=True))
        return self.dropout(self.down(hidden))


def by_difference(scores: Tensor) -> Tensor:
    """(..., T, 2 T - 1) scores of frame i at i - j = T - 1 ... 1 - T -> (..., T, T) at frame j.

    In a row of memory, element (i, j) lies at i (2 T - 2) + T - 1 + j: a view.  T >= 2.
    """
    frames = scores.shape[-2]
    flat = scores.flatten(-2)[..., frames - 1 : frames - 1 + frames * (2 * frames - 2)]
    return flat.unflatten(-1, (frames, 2 * frames - 2))[..., :frames]


class RelativeAttention(nn.Module):
    """(B, T, C) -> same: norm - attention of H heads with relative positions; T >= 2.

    weights = softmax over j of (q_i . k_j + q_i . p_(i - j)) / sqrt(C / H), p the same in all
    heads; differences beyond ``max_distance`` count as that.
    """

    def __init__(self, channels: int, heads: int, max_distance: int, dropout: float) -> None:
        super().__init__()
        assert channels % heads == 0
        self.heads, self.max_distance = heads, max_distance
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(channels, 2 * channels, bias=False)
        self.output = nn.Linear(channels, channels)
        self.positions = nn.Embedding(2 * max_distance + 1, channels // heads)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        parts = self.query(x), *self.key_value(x).chunk(2, dim=-1)
        with no_autocast(x):
            query, key, value = (
                at_least_float32(part).unflatten(2, (self.heads, -1)).transpose(1, 2)
                for part in parts  # (B, H, T, C / H)
            )
            bias = self._position_scores(query)
            if mask is not None:
                bias = bias.masked_fill(~mask[:, None, None], -torch.inf)
            y = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.dropout(self.output(y.transpose(1, 2).flatten(2)))

    def _position_scores(self, query: Tensor) -> Tensor:
        """(B, H, T, C / H) -> (B, H, T, T): q_i . p_(i - j) / sqrt(C / H)."""
        frames = query.shape[2]
        difference = torch.arange(frames - 1, -frames, -1, device=query.device)
        index = difference.clamp(-self.max_distance, self.max_distance) + self.max_distance
        vectors = self.positions(index) * query.shape[-1] ** -0.5  # (2 T - 1, C / H)
        return by_difference(query @ vectors.T)


class ConvolutionModule(nn.Module):
    """(B, T, C) -> same: norm - gated linear unit - depthwise convolution - norm - swish - back.

    expansion: channels inside over C.  kernel: frames of the convolution, odd.
    """

    def __init__(self, channels: int, expansion: int, kernel: int, dropout: float) -> None:
        super().__init__()
        inside = expansion * channels
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, 2 * inside)
        self.conv = TimeConv(inside, kernel)
        self.conv_norm = nn.BatchNorm2d(inside)
        self.down = nn.Linear(inside, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = functional.glu(self.up(self.norm(x)), dim=-1)
        if mask is not None:
            y = y.masked_fill(~mask[..., None], 0.0)
        y = functional.silu(self.conv(y, self.conv_norm))
        return self.dropout(self.down(y))


class ConformerBlock(nn.Module):
    """(B, T, C) -> same, T >= 2.  Gulati et al., equation 1."""

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 4,
        expansion: int = 4,
        conv_expansion: int = 2,
        kernel: int = 31,
        max_distance: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.before = FeedForward(channels, expansion, dropout)
        self.attention = RelativeAttention(channels, heads, max_distance, dropout)
        self.convolution = ConvolutionModule(channels, conv_expansion, kernel, dropout)
        self.after = FeedForward(channels, expansion, dropout)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + 0.5 * self.before(x)
        x = x + self.attention(x, mask)
        x = x + self.convolution(x, mask)
        return self.norm(x + 0.5 * self.after(x))
