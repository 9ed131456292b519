"""Mixup: weights, partners, labels."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from glottis.augment import AugmentContext
from glottis.augment.mixup import Mixup, MixupConfig, MixupParams, partner_of
from glottis.config import build
from glottis.rng import generator, torch_generator


def mixup(**options: object) -> Mixup:
    return Mixup(build(MixupConfig, options), AugmentContext())


def test_waves_are_weighted_by_the_share_and_the_rest() -> None:
    wave = torch.randn(4, 100, generator=torch_generator(1))
    params = [mixup().sample(generator(1, i), 100) for i in range(4)]
    mixed, partner, share = mixup().apply(wave, params)
    for row, drawn in enumerate(params):
        other = int(partner[row])
        assert other != row
        assert float(share[row]) == np.float32(drawn.share)
        expected = drawn.share * wave[row] + (1 - drawn.share) * wave[other]
        torch.testing.assert_close(mixed[row], expected)


def test_items_without_parameters_and_lonely_items_stay_pure() -> None:
    wave = torch.randn(2, 10, generator=torch_generator(2))
    mixed, partner, share = mixup().apply(wave, [None, MixupParams(0.3, 0.5)])
    assert torch.equal(mixed[0], wave[0])
    assert partner.tolist() == [0, 0]
    assert share[0] == 1.0
    alone, partner, share = mixup().apply(wave[:1], [MixupParams(0.3, 0.5)])
    assert torch.equal(alone, wave[:1])
    assert (partner.tolist(), share.tolist()) == ([0], [1.0])


@given(st.integers(2, 500), st.floats(0.0, 1.0, exclude_max=True), st.data())
def test_a_partner_is_another_item_of_the_batch(
    total: int, place: float, data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, total - 1))
    partner = partner_of(row, MixupParams(0.5, place), total)
    assert 0 <= partner < total
    assert partner != row


def test_all_other_items_are_equally_likely_partners() -> None:
    places = (np.arange(700) + 0.5) / 700
    partners = [partner_of(3, MixupParams(0.5, p), 8) for p in places]
    assert np.bincount(partners, minlength=8).tolist() == [100, 100, 100, 0, 100, 100, 100, 100]


def test_shares_follow_the_beta_distribution() -> None:
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1)), within five standard errors."""
    shares = np.array([mixup(alpha=0.5).sample(generator(3, i), 1).share for i in range(2000)])
    variance = 1 / (4 * (2 * 0.5 + 1))
    assert abs(shares.mean() - 0.5) < 5 * np.sqrt(variance / 2000)
    assert abs(shares.var() - variance) < 0.012
