"""Pooling with one weight per frame against the plain formulas."""

from __future__ import annotations

import pytest
import torch

from glottis.models.parts.frame_pooling import FramePooling
from glottis.rng import torch_generator


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch_generator(3))


@pytest.mark.parametrize("deviation", [True, False])
def test_a_padded_batch_gives_what_its_items_give_alone(deviation: bool) -> None:
    pool = FramePooling(6, 4, "tanh", deviation=deviation)
    x = noise(2, 6, 9)
    x[1, :, 5:] = torch.nan
    together = pool(x, torch.tensor([9, 5]))
    assert together.shape == (2, pool.output_size)
    torch.testing.assert_close(together[0], pool(x[:1])[0])
    torch.testing.assert_close(together[1], pool(x[1:, :, :5])[0])


def test_equal_weights_give_mean_and_biased_deviation() -> None:
    pool = FramePooling(3, 2, "relu")
    torch.nn.init.zeros_(pool.expand.weight)
    x = noise(2, 3, 50)
    expected = torch.cat([x.mean(-1), x.std(-1, correction=0)], dim=1)
    torch.testing.assert_close(pool(x), expected)


def test_a_small_deviation_beside_a_large_mean_is_not_lost() -> None:
    pool = FramePooling(1, 2, "relu", min_variance=1e-12)
    torch.nn.init.zeros_(pool.expand.weight)
    x = 100.0 + 1e-3 * torch.tensor([[[-1.0, 1.0] * 8]])
    assert float(pool(x).detach()[0, 1]) == pytest.approx(1e-3, rel=0.02)
    assert float(pool(torch.full((1, 1, 4), 5.0)).detach()[0, 1]) == pytest.approx(1e-6)


def test_autocast_changes_nothing() -> None:
    pool = FramePooling(6, 4, "tanh")
    x = noise(2, 6, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pool(x), pool(x.float()))
        assert pool(x.bfloat16()).dtype == torch.float32
    assert torch.equal(pool(x), pool(x))
