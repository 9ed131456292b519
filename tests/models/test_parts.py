"""Pooling, squeeze-excitation and the sinc envelope against closed forms and plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from glottis.models.parts.pooling import (
    AttentiveStatisticsPooling,
    SelfAttentivePooling,
    weighted_statistics,
)
from glottis.models.parts.sinc import SincEnvelope, sinc_filters
from glottis.models.parts.squeeze import SqueezeExcitation


def test_statistics_with_equal_weights_are_mean_and_deviation() -> None:
    x = torch.randn(2, 5, 400)
    result = weighted_statistics(x, torch.full((2, 1, 400), 1 / 400))
    mean, deviation = x.mean(-1), x.std(-1, correction=0)
    torch.testing.assert_close(result, torch.cat([mean, deviation], 1), rtol=1e-4, atol=1e-5)


def test_statistics_of_a_constant_have_a_finite_gradient() -> None:
    x = torch.ones(1, 3, 10, requires_grad=True)
    weighted_statistics(x, torch.full((1, 1, 10), 0.1)).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("kind", [SelfAttentivePooling, AttentiveStatisticsPooling])
def test_pooling_with_no_preference_is_the_plain_mean(kind: type) -> None:
    pool = kind(6)
    torch.nn.init.zeros_(pool.frames.attention)
    x = torch.randn(2, 6, 9)
    assert pool(x).shape == (2, pool.output_size)
    torch.testing.assert_close(pool(x)[:, :6], x.mean(-1))


@pytest.mark.parametrize("kind", [SelfAttentivePooling, AttentiveStatisticsPooling])
def test_pooling_is_float32_under_autocast(kind: type) -> None:
    pool, x = kind(6), torch.randn(2, 6, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = pool(x)
    assert result.dtype == torch.float32
    assert torch.equal(result, pool(x))


def test_squeeze_excitation_gates_each_channel() -> None:
    block, x = SqueezeExcitation(8, reduction=4), torch.randn(3, 8, 5, 7)
    hidden = torch.relu(block.reduce(x.mean((2, 3))))
    gate = torch.sigmoid(block.expand(hidden))
    torch.testing.assert_close(block(x), x * gate[..., None, None])


def test_sinc_filters_are_symmetric_band_passes() -> None:
    filters = sinc_filters(70, 129, 16000)
    assert filters.shape == (70, 129)
    torch.testing.assert_close(filters, filters.flip(1), rtol=0, atol=1e-8)
    response = torch.fft.rfft(filters.double(), n=4096).abs()
    peak_hz = response.argmax(1) * 16000 / 4096
    assert (peak_hz.diff()[5:] > 0).all()  # the lowest bands are narrower than a filter resolves
    assert 7600 < peak_hz[-1] <= 8000
    assert peak_hz[0] < 60


def test_envelope_equals_convolution_and_pool() -> None:
    wave = torch.randn(3, 3000)
    envelope = SincEnvelope(70, 129, 16000)
    filters = sinc_filters(70, 129, 16000)
    plain = functional.conv1d(wave[:, None], filters[:, None]).abs()
    plain = functional.max_pool2d(plain[:, None], 3)
    assert envelope(wave).shape == plain.shape == (3, 1, 23, 957)
    torch.testing.assert_close(envelope(wave), plain, rtol=1e-5, atol=1e-6)


def test_a_mask_silences_filters() -> None:
    wave = torch.randn(2, 2500)
    envelope = SincEnvelope(12, 33, 16000)
    mask = torch.ones(12)
    mask[3:7] = 0
    filters = sinc_filters(12, 33, 16000) * mask[:, None]
    plain = functional.max_pool2d(
        functional.conv1d(wave[:, None], filters[:, None]).abs()[:, None], 3
    )
    torch.testing.assert_close(envelope(wave, mask), plain, rtol=1e-5, atol=1e-6)
    assert (envelope(wave, mask)[:, :, 1] == 0).all()


def test_the_front_end_of_aasist_records_no_graph_and_no_state() -> None:
    envelope = SincEnvelope(12, 33, 16000)
    assert not envelope(torch.randn(1, 500)).requires_grad
    assert envelope(torch.randn(1, 500, requires_grad=True)).requires_grad
    assert envelope.state_dict() == {}


def test_the_envelope_is_float32_under_autocast() -> None:
    envelope, wave = SincEnvelope(12, 33, 16000), torch.randn(1, 500)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(envelope(wave), envelope(wave))
        assert envelope(wave).dtype == torch.float32
        assert math.isfinite(float(envelope(wave).sum()))
