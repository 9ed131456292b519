"""Learned sinc filters: closed forms, the published start, and what training can do to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from glottis.models.parts.learned_sinc import LearnedSinc

RATE = 16000


def bands(bank: LearnedSinc) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of every filter in Hz, by the published rule."""
    low = 50 + bank.low_hz.detach().abs().double().numpy()
    return low, np.clip(low + 50 + bank.band_hz.detach().abs().double().numpy(), 50, RATE / 2)


def windowed(kind: str) -> np.ndarray:
    """A Hamming window of 251 taps on the symmetric grid, or the one of SincNet's code."""
    if kind == "symmetric":
        return np.hamming(251)
    left = 0.54 - 0.46 * np.cos(2 * np.pi * np.linspace(0, 124.5, 125) / 251)
    return np.concatenate([left, [1.0], left[::-1]])


@pytest.mark.parametrize("kind", ["symmetric", "sincnet"])
def test_filters_are_windowed_ideal_band_passes(kind) -> None:
    bank = LearnedSinc(16, sine=True, window=kind)
    low, high = bands(bank)
    seconds = np.arange(-125, 126) / RATE
    width = (high - low)[:, None]
    pass_band = 2 * high[:, None] * np.sinc(2 * high[:, None] * seconds)
    pass_band -= 2 * low[:, None] * np.sinc(2 * low[:, None] * seconds)
    cosine = pass_band / (2 * width) * windowed(kind)
    with np.errstate(invalid="ignore"):
        sine = np.cos(2 * np.pi * low[:, None] * seconds)
        sine = (sine - np.cos(2 * np.pi * high[:, None] * seconds)) / (np.pi * seconds)
    sine[:, 125] = 0.0
    expected = np.concatenate([cosine, sine / (2 * width) * windowed(kind)])
    np.testing.assert_allclose(bank.filters().detach().numpy(), expected, atol=2e-4)


def test_the_bands_start_equally_spaced_in_mel() -> None:
    bank = LearnedSinc(128)
    edges = torch.cat([bank.low_hz, bank.low_hz[-1:] + bank.band_hz[-1:]]).detach().double()
    mel = 2595 * torch.log10(1 + edges / 700)
    assert float(edges[0]) == pytest.approx(30.0, rel=1e-4)
    assert float(edges[-1]) == pytest.approx(7900.0, rel=1e-4)
    torch.testing.assert_close(mel.diff(), mel.diff().mean().expand(128), rtol=1e-3, atol=0)


def test_a_cosine_and_its_sine_see_one_band_a_quarter_period_apart() -> None:
    bank = LearnedSinc(16, 1001, sine=True)
    low, high = bands(bank)
    wave = torch.cos(2 * math.pi * float(low[9] + high[9]) / 2 * torch.arange(4000) / RATE)
    cosine, sine = bank(wave[None])[0].detach().chunk(2)
    envelope = (cosine[9].square() + sine[9].square()).sqrt()
    assert float(envelope.std() / envelope.mean()) < 0.01  # analytic: no ripple
    assert float(cosine[9].norm() / cosine[5].norm()) > 100


@pytest.mark.parametrize(("stride", "padding"), [(10, 0), (160, 125), (1, 3)])
def test_frames_are_as_announced(stride, padding) -> None:
    bank = LearnedSinc(8, 251, stride, padding=padding)
    for samples in (251, 3200, 3201, 3359):
        assert bank(torch.randn(2, samples)).shape == (2, 8, bank.num_frames(samples))


def test_a_band_that_drifted_to_half_the_rate_is_silent_and_finite() -> None:
    bank = LearnedSinc(4, sine=True)
    with torch.no_grad():
        bank.low_hz.copy_(torch.tensor([7950.0, 9000.0, -100.0, 0.0]))
        bank.band_hz.copy_(torch.tensor([0.0, 10.0, -20.0, 0.0]))
    filters = bank.filters()
    filters.square().sum().backward()
    assert torch.isfinite(filters).all()
    assert filters[0].abs().max() == 0
    for edge in (bank.low_hz, bank.band_hz):
        assert torch.isfinite(edge.grad).all()


def test_edges_learn_where_the_energy_is() -> None:
    bank = nn.Sequential(LearnedSinc(1, 251, 5))
    wave = torch.sin(2 * math.pi * 3000 * torch.arange(2000) / RATE)[None]
    optimiser = torch.optim.Adam(bank.parameters(), lr=20.0)
    start = float(bank(wave).square().mean().detach())
    for _ in range(20):
        optimiser.zero_grad()
        (-bank(wave).square().mean()).backward()
        optimiser.step()
    assert float(bank(wave).square().mean().detach()) > start


def test_tables_stay_out_of_the_state_dict_and_of_autocast() -> None:
    bank = LearnedSinc(4)
    assert set(bank.state_dict()) == {"low_hz", "band_hz"}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert bank(torch.randn(1, 300)).dtype == torch.float32
