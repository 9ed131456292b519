"""Long filters through the FFT give what a convolution gives."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from glottis.models.parts.fft_filter import fft_filter


@pytest.mark.parametrize("samples", [33, 34, 96, 97, 1000])
def test_it_equals_a_convolution_at_every_length(samples) -> None:
    torch.manual_seed(0)
    wave, filters = torch.randn(3, samples), torch.randn(5, 33)
    expected = functional.conv1d(wave[:, None], filters[:, None])
    found = fft_filter(wave, filters, block=96)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_of_the_wave_equal_those_of_a_convolution() -> None:
    torch.manual_seed(0)
    wave, filters = torch.randn(2, 300, requires_grad=True), torch.randn(4, 33)
    weights = torch.randn(2, 4, 268)
    (expected,) = torch.autograd.grad(
        (functional.conv1d(wave[:, None], filters[:, None]) * weights).sum(), wave
    )
    (found,) = torch.autograd.grad((fft_filter(wave, filters, block=64) * weights).sum(), wave)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
