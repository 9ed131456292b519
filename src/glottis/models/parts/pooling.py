"""Pooling over time: (B, C, T) -> (B, C) or (B, 2 C), always in float32.

Every pool takes ``lengths`` (B,), the frames of each item that are real: what is behind them
changes nothing, so that a padded batch gives what its items give one by one.  None means all.

- TAP, TSTP: mean, and mean with standard deviation; Snyder et al., "X-vectors", ICASSP 2018.
  MAX: the largest value.
- SAP, one weight per frame: Cai et al., "Exploring the encoding layer and loss function in
  end-to-end speaker and language recognition system", Odyssey 2018.
- ASP, the same weights and the standard deviation: Okabe et al., "Attentive statistics pooling for
  deep speaker embedding", Interspeech 2018.
- ASTP, one weight per channel and frame: Desplanques et al., "ECAPA-TDNN", Interspeech 2020,
  section 2.1.
- Multi-head: India, Safari and Hernando, "Self multi-head attention for speaker recognition",
  Interspeech 2019.

Shapes: B batch, C channels, T frames, H heads.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.models.parts.precision import at_least_float32, no_autocast

Activation = Literal["relu_norm", "tanh", "relu_norm_tanh"]
"""Between the two layers of an attention; the norm is a batch norm."""


def frame_mask(x: Tensor, lengths: Tensor | None) -> Tensor | None:
    """(B, 1, T) bool for x (B, C, T): which frames are real; None where all are."""
    if lengths is None:
        return None
    frames = torch.arange(x.shape[-1], device=x.device)
    return frames[None, None] < lengths.to(x.device)[:, None, None]


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last axis; frames outside of the mask get weight 0."""
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.softmax(scores, dim=-1)


def mean_variance(x: Tensor, mask: Tensor | None, unbiased: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and variance over the real frames, each (B, C); unbiased: divided by T - 1.

    One frame has variance 0, where torch's own unbiased variance would be NaN.
    """
    if mask is None:
        count = torch.full((), float(x.shape[-1]), dtype=x.dtype, device=x.device)
        mean = x.mean(dim=-1)
        centred = x - mean[..., None]
    else:
        count = mask.sum(dim=-1).to(x.dtype)  # (B, 1)
        x = x.masked_fill(~mask, 0.0)
        mean = x.sum(dim=-1) / count
        centred = (x - mean[..., None]).masked_fill(~mask, 0.0)
    divisor = (count - 1).clamp_min(1.0) if unbiased else count
    return mean, centred.square().sum(dim=-1) / divisor


def weighted_statistics(
    x: Tensor,
    weights: Tensor,
    min_variance: float = 1e-5,
    *,
    max_variance: float | None = None,
    centred: bool = False,
) -> Tensor:
    """(B, C, T) and weights over T that add up to 1 -> mean | standard deviation (B, 2 C).

    The variance E[x^2] - mean^2 is kept above ``min_variance``: its square root has a slope.
    max_variance: an upper limit, where a published network has one.
    centred: the same variance as E[(x - mean)^2], which does not lose small ones to rounding.
    """
    mean = (x * weights).sum(dim=-1)
    if centred:
        variance = ((x - mean[..., None]).square() * weights).sum(dim=-1)
    else:
        variance = (x.square() * weights).sum(dim=-1) - mean.square()
    return torch.cat([mean, variance.clamp(min_variance, max_variance).sqrt()], dim=-1)


class FrameAttention(nn.Module):
    """One weight per frame: softmax over T of tanh(W x + b) . a;  (B, C, T) -> (B, 1, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Parameter(torch.empty(channels, 1))
        self.linear = nn.Linear(channels, channels)
        nn.init.xavier_normal_(self.attention)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        scores = torch.tanh(self.linear(x.transpose(1, 2))) @ self.attention  # (B, T, 1)
        return masked_softmax(scores.transpose(1, 2), frame_mask(x, lengths))


class ChannelAttention(nn.Module):
    """One weight per channel and frame: softmax over T of W2 act(W1 x);  (B, C, T) -> (B, C, T).

    context: every frame also sees the mean and the deviation of the whole utterance, so that W1
    takes 3 C channels.  min_variance, max_variance, unbiased: of that deviation; ``add_variance``
    adds the least variance where otherwise it is a floor (published networks differ).
    """

    def __init__(
        self,
        channels: int,
        bottleneck: int = 128,
        activation: Activation = "tanh",
        *,
        context: bool = False,
        min_variance: float = 1e-7,
        max_variance: float | None = None,
        add_variance: bool = True,
        unbiased: bool = True,
    ) -> None:
        super().__init__()
        self.context, self.unbiased = context, unbiased
        self.min_variance, self.max_variance = min_variance, max_variance
        self.add_variance = add_variance
        self.activation = activation
        self.reduce = nn.Conv1d(channels * (3 if context else 1), bottleneck, 1)
        self.norm = None if activation == "tanh" else nn.BatchNorm1d(bottleneck)
        self.expand = nn.Conv1d(bottleneck, channels, 1)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        mask = frame_mask(x, lengths)
        hidden = self._reduced_with_context(x, mask) if self.context else self.reduce(x)
        if self.norm is not None:
            hidden = self.norm(torch.relu(hidden))
        if self.activation != "relu_norm":
            hidden = torch.tanh(hidden)
        return masked_softmax(self.expand(hidden), mask)

    def _context(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Mean | deviation of the whole utterance, (B, 2 C)."""
        mean, variance = mean_variance(x, mask, self.unbiased)
        if self.add_variance:
            variance = variance + self.min_variance
        else:
            variance = variance.clamp(self.min_variance, self.max_variance)
        return torch.cat([mean, variance.sqrt()], dim=1)

    def _reduced_with_context(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """W1 of the frames with the context below each of them, (B, bottleneck, T).

        The context is the same at every frame: its share is computed once.
        """
        if not isinstance(self.reduce, nn.Conv1d):  # with an adapter beside it
            context = self._context(x, mask)[..., None].expand(-1, -1, x.shape[2])
            return self.reduce(torch.cat([x, context], dim=1))
        own, shared = self.reduce.weight.split([x.shape[1], 2 * x.shape[1]], dim=1)
        offset = functional.linear(self._context(x, mask), shared[..., 0], self.reduce.bias)
        return functional.conv1d(x, own) + offset[..., None]


class TemporalAveragePooling(nn.Module):
    """Mean over time (TAP): (B, C, T) -> (B, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.output_size = channels

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        x = at_least_float32(x)
        return mean_variance(x, frame_mask(x, lengths))[0]


class TemporalMaximumPooling(nn.Module):
    """Largest value over time (MAX): (B, C, T) -> (B, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.output_size = channels

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        x, mask = at_least_float32(x), frame_mask(x, lengths)
        return (x if mask is None else x.masked_fill(~mask, -torch.inf)).amax(dim=-1)


class TemporalStatisticsPooling(nn.Module):
    """Mean | standard deviation over time (TSTP): (B, C, T) -> (B, 2 C).

    The deviation is sqrt(unbiased variance + min_variance).
    """

    def __init__(self, channels: int, min_variance: float = 1e-7) -> None:
        super().__init__()
        self.min_variance = min_variance
        self.output_size = 2 * channels

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        with no_autocast(x):
            x = at_least_float32(x)
            mean, variance = mean_variance(x, frame_mask(x, lengths))
            return torch.cat([mean, (variance + self.min_variance).sqrt()], dim=1)


class SelfAttentivePooling(nn.Module):
    """Weighted mean over time (SAP): (B, C, T) -> (B, C), T >= 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frames = FrameAttention(channels)
        self.output_size = channels

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        with no_autocast(x):
            x = at_least_float32(x)
            return (real(x, lengths) * self.frames(x, lengths)).sum(dim=-1)


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean | standard deviation (ASP): (B, C, T) -> (B, 2 C), T >= 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frames = FrameAttention(channels)
        self.output_size = 2 * channels

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        with no_autocast(x):
            x = at_least_float32(x)
            return weighted_statistics(real(x, lengths), self.frames(x, lengths))


class ChannelAttentivePooling(nn.Module):
    """Mean with a weight per channel and frame: (B, C, T) -> (B, C).

    attention: as in `ChannelStatisticsPooling`.
    """

    def __init__(self, channels: int, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.output_size = channels

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        with no_autocast(x):
            x = at_least_float32(x)
            return (real(x, lengths) * self.attention(x, lengths)).sum(dim=-1)


class ChannelStatisticsPooling(nn.Module):
    """Mean | standard deviation with a weight per channel and frame (ASTP): (B, C, T) -> (B, 2 C).

    attention: a ready `ChannelAttention`, or another module from x and lengths to weights that add
    up to 1 over the frames, (B, C, T) or (B, 1, T).  The rest: see `weighted_statistics`.
    """

    def __init__(
        self,
        channels: int,
        attention: nn.Module,
        min_variance: float = 1e-7,
        max_variance: float | None = None,
        *,
        centred: bool = False,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.min_variance, self.max_variance = min_variance, max_variance
        self.centred = centred
        self.output_size = 2 * channels

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        with no_autocast(x):
            x = at_least_float32(x)
            weights, x = self.attention(x, lengths), real(x, lengths)
            return weighted_statistics(
                x,
                weights,
                self.min_variance,
                max_variance=self.max_variance,
                centred=self.centred,
            )


class MultiHeadPooling(nn.Module):
    """H weighted means, one per block of C / H channels: (B, C, T) -> (B, C).

    India et al., Interspeech 2019, equations 3 to 5: the score of a frame in a head is the inner
    product of its block with a learned vector over sqrt(C / H).
    """

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        assert channels % heads == 0
        self.heads = heads
        self.query = nn.Parameter(torch.empty(heads, channels // heads))
        self.output_size = channels
        nn.init.xavier_normal_(self.query)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        with no_autocast(x):
            blocks = at_least_float32(real(x, lengths)).unflatten(1, (self.heads, -1))
            scores = torch.einsum("bhct,hc->bht", blocks, self.query)
            weights = masked_softmax(scores / blocks.shape[2] ** 0.5, frame_mask(x, lengths))
            return torch.einsum("bhct,bht->bhc", blocks, weights).flatten(1)


def real(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x with zeros behind the real frames: 0 times a NaN in the padding would be NaN."""
    mask = frame_mask(x, lengths)
    return x if mask is None else x.masked_fill(~mask, 0.0)
