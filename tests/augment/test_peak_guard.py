"""Peaks above the ceiling are turned down, and only those."""

from __future__ import annotations

import pytest
import torch

from glottis.augment import AugmentContext
from glottis.augment.peak_guard import PeakGuard, PeakGuardConfig, PeakGuardParams
from glottis.config import build
from glottis.rng import torch_generator


def test_only_loud_clips_change_and_keep_their_shape() -> None:
    guard = PeakGuard(build(PeakGuardConfig, {}), AugmentContext())
    wave = torch.randn(2, 500, generator=torch_generator(1))
    wave = wave / wave.abs().amax(1, keepdim=True) * torch.tensor([[0.5], [4.0]])
    guarded = guard.apply(wave, [PeakGuardParams(0.99)] * 2)
    assert torch.equal(guarded[0], wave[0])
    assert float(guarded[1].abs().max()) == pytest.approx(0.99)
    torch.testing.assert_close(guarded[1] * (4.0 / 0.99), wave[1])
    assert guard.counts() == {"turned_down": 1}
