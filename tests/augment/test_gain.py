"""Level changes in decibels."""

from __future__ import annotations

import numpy as np
import torch

from glottis.augment import AugmentContext
from glottis.augment.gain import Gain, GainConfig, GainParams
from glottis.config import build
from glottis.rng import generator, torch_generator


def test_rms_moves_by_the_drawn_decibels() -> None:
    gain = Gain(build(GainConfig, {"gain_db": [-20.0, 20.0]}), AugmentContext())
    wave = 0.1 * torch.randn(16, 1000, generator=torch_generator(1))
    params = [gain.sample(generator(1, i), 1000) for i in range(16)]
    changed = gain.apply(wave, params)
    ratio = 20 * torch.log10(changed.norm(dim=1) / wave.norm(dim=1))
    assert np.allclose(ratio, [p.gain_db for p in params], atol=1e-3)
    assert max(p.gain_db for p in params) > 10 > -10 > min(p.gain_db for p in params)


def test_twenty_decibels_are_a_factor_of_ten() -> None:
    gain = Gain(build(GainConfig, {}), AugmentContext())
    assert torch.equal(gain.apply(torch.ones(1, 3), [GainParams(20.0)]), torch.full((1, 3), 10.0))
