"""Masks hide something, never everything."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glottis.augment import AugmentContext
from glottis.augment.mask import (
    FrequencyMask,
    FrequencyMaskConfig,
    MaskParams,
    TimeMask,
    TimeMaskConfig,
    masked_positions,
)
from glottis.config import build
from glottis.rng import generator, torch_generator


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(1, 300),
    num_masks=st.integers(1, 5),
    max_width=st.integers(1, 400),
    max_share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_never_more_than_the_share_is_masked(
    size: int, num_masks: int, max_width: int, max_share: float, seed: int
) -> None:
    config = build(
        TimeMaskConfig, {"num_masks": num_masks, "max_width": max_width, "max_share": max_share}
    )
    params = TimeMask(config, AugmentContext()).sample(generator(seed), 16000)
    masks = masked_positions([params], size, max_share, torch.device("cpu"))
    assert masks.shape == (1, size)
    assert int(masks.sum()) <= max_share * size
    assert int(masks.sum()) < size


def test_frequency_mask_hides_whole_bands_and_time_mask_whole_frames() -> None:
    features = torch.randn(2, 20, 30, generator=torch_generator(1)) + 5.0
    params = [MaskParams((4,), (0.5,)), MaskParams((6,), (0.0,))]
    bands = FrequencyMask(build(FrequencyMaskConfig, {}), AugmentContext())
    frames = TimeMask(build(TimeMaskConfig, {}), AugmentContext())
    hidden_bands = (bands.apply(features, params) != features).all(2)
    hidden_frames = (frames.apply(features, params) != features).all(1)
    assert hidden_bands.nonzero().tolist() == [
        *([0, b] for b in range(8, 12)),
        *([1, b] for b in range(6)),
    ]
    assert hidden_frames[0].nonzero().flatten().tolist() == [13, 14, 15, 16]
    assert hidden_frames[1].nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert ((bands.apply(features, params) != features).any(2) == hidden_bands).all()


def test_hidden_values_become_the_mean_of_the_clip() -> None:
    features = torch.randn(1, 20, 30, generator=torch_generator(2)) + 5.0
    bands = FrequencyMask(build(FrequencyMaskConfig, {}), AugmentContext())
    masked = bands.apply(features, [MaskParams((4,), (0.0,))])
    torch.testing.assert_close(masked[0, :4], features.mean().expand(4, 30))


def test_widths_and_places_reach_both_ends() -> None:
    config = build(FrequencyMaskConfig, {"max_width": 3, "num_masks": 2})
    mask = FrequencyMask(config, AugmentContext())
    params = [mask.sample(generator(3, i), 16000) for i in range(300)]
    assert {w for p in params for w in p.widths} == {0, 1, 2, 3}
    hidden = masked_positions(params, 40, 0.5, torch.device("cpu"))
    assert hidden.any(0).all()


def test_several_masks_are_independent() -> None:
    params = MaskParams((2, 3), (0.0, 0.999))
    hidden = masked_positions([params], 20, 0.5, torch.device("cpu"))[0]
    assert hidden.nonzero().flatten().tolist() == [0, 1, 17, 18, 19]
