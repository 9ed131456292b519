"""Every pool: closed forms, and a padded batch equals its items one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from glottis.models.parts.pooling import (
    AttentiveStatisticsPooling,
    ChannelAttention,
    ChannelAttentivePooling,
    ChannelStatisticsPooling,
    MultiHeadPooling,
    SelfAttentivePooling,
    TemporalAveragePooling,
    TemporalMaximumPooling,
    TemporalStatisticsPooling,
    mean_variance,
)

C = 8
POOLS: dict[str, Callable[[], nn.Module]] = {
    "tap": lambda: TemporalAveragePooling(C),
    "max": lambda: TemporalMaximumPooling(C),
    "tstp": lambda: TemporalStatisticsPooling(C),
    "sap": lambda: SelfAttentivePooling(C),
    "asp": lambda: AttentiveStatisticsPooling(C),
    "sap per channel": lambda: ChannelAttentivePooling(C, ChannelAttention(C, 4)),
    "astp": lambda: ChannelStatisticsPooling(C, ChannelAttention(C, 4)),
    "astp with context": lambda: ChannelStatisticsPooling(C, ChannelAttention(C, 4, context=True)),
    "astp relu": lambda: ChannelStatisticsPooling(
        C, ChannelAttention(C, 4, "relu_norm", context=True, add_variance=False, unbiased=False)
    ),
    "astp relu tanh": lambda: ChannelStatisticsPooling(C, ChannelAttention(C, 4, "relu_norm_tanh")),
    "multi-head": lambda: MultiHeadPooling(C, heads=2),
}
every_pool = pytest.mark.parametrize("name", POOLS)
LENGTHS = [1, 5, 12]


def pool_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return POOLS[name]().eval()


def clips() -> list[Tensor]:
    rng = torch.Generator().manual_seed(1)
    return [torch.randn(1, C, length, generator=rng) for length in LENGTHS]


@every_pool
@pytest.mark.parametrize("padding", [0.0, 7.0, float("nan")])
def test_a_padded_batch_equals_its_items_one_by_one(name: str, padding: float) -> None:
    pool = pool_of(name)
    batch = torch.full((len(LENGTHS), C, max(LENGTHS)), padding)
    for row, clip in zip(batch, clips(), strict=True):
        row[:, : clip.shape[-1]] = clip[0]
    together = pool(batch, torch.tensor(LENGTHS))
    alone = torch.cat([pool(clip) for clip in clips()])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


@every_pool
def test_output_size_and_float32_under_autocast(name: str) -> None:
    pool, x = pool_of(name), torch.randn(2, C, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = pool(x)
    assert result.shape == (2, pool.output_size)
    assert result.dtype == torch.float32
    assert torch.equal(result, pool(x))


@every_pool
def test_one_frame_and_constant_input_have_finite_gradients(name: str) -> None:
    pool = pool_of(name)
    for x in (torch.randn(2, C, 1), torch.zeros(2, C, 6)):
        x.requires_grad_()
        result = pool(x)
        result.sum().backward()
        assert torch.isfinite(result).all()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("unbiased", [True, False])
def test_mean_and_variance_are_those_of_torch(unbiased: bool) -> None:
    x = torch.randn(3, C, 20)
    mean, variance = mean_variance(x, None, unbiased)
    torch.testing.assert_close(mean, x.mean(-1))
    torch.testing.assert_close(variance, x.var(-1, correction=int(unbiased)))


def test_statistics_pooling_is_mean_and_deviation() -> None:
    x = torch.randn(2, C, 30)
    expected = torch.cat([x.mean(-1), (x.var(-1) + 1e-7).sqrt()], dim=1)
    torch.testing.assert_close(TemporalStatisticsPooling(C)(x), expected)


def test_heads_without_preference_average_their_blocks() -> None:
    pool, x = MultiHeadPooling(C, heads=4), torch.randn(2, C, 11)
    nn.init.zeros_(pool.query)
    torch.testing.assert_close(pool(x), x.mean(-1))


def test_channel_attention_weights_add_up_to_one_over_the_real_frames() -> None:
    attention = ChannelAttention(C, 4, context=True)
    weights = attention(torch.randn(2, C, 10), torch.tensor([4, 10]))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, C))
    assert (weights[0, :, 4:] == 0).all()


def test_variances_stay_within_the_limits_of_a_published_network() -> None:
    attention = ChannelAttention(C, 4, context=True, add_variance=False, max_variance=4.0)
    pool = ChannelStatisticsPooling(C, attention, min_variance=0.25, max_variance=4.0)
    x = torch.randn(2, C, 50) * torch.tensor([0.0, 1.0, 100.0]).repeat(C)[:C, None]
    deviation = pool(x)[:, C:]
    assert (deviation[:, 0::3] == 0.5).all()
    assert (deviation[:, 2::3] == 2.0).all()
    context = attention._context(x, None)[:, C:]
    assert (context[:, 2::3] == 2.0).all()


def test_the_context_counts_as_if_it_stood_below_every_frame() -> None:
    torch.manual_seed(0)
    attention, x = ChannelAttention(C, 4, context=True), torch.randn(2, C, 9)
    below = torch.cat([x.mean(-1), (x.var(-1) + 1e-7).sqrt()], dim=1)
    hidden = attention.reduce(torch.cat([x, below[..., None].expand(-1, -1, 9)], dim=1))
    weights = torch.softmax(attention.expand(torch.tanh(hidden)), dim=-1)
    torch.testing.assert_close(attention(x), weights)
