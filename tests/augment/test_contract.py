"""What every registered augmentation promises."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, is_dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glottis.augment import AUGMENTATIONS, Augmentation, AugmentContext, Augmenter
from glottis.config import require_all_read
from glottis.rng import generator, torch_generator

NAMES = AUGMENTATIONS.names()
SAMPLES = 4000


@cache
def build(name: str) -> Augmentation[Any]:
    config = AUGMENTATIONS.config(name)
    return AUGMENTATIONS[name].target(config, AugmentContext(seed=5))


def with_probability(name: str, probability: float) -> Augmentation[Any]:
    """The same material, another chance (banks take a second to simulate)."""
    augmentation = copy(build(name))
    augmentation.probability = probability
    return augmentation


def draws(augmentation: Augmentation[Any], count: int, *, samples: int = SAMPLES) -> list[Any]:
    return [augmentation.draw(generator(1, "draw", i), samples) for i in range(count)]


def width(augmentation: Augmentation[Any], params: Sequence[Any], samples: int) -> int:
    if augmentation.stage != "source":
        return samples
    return max(augmentation.source_samples(p, samples) for p in params)


def batch(augmentation: Augmentation[Any], params: Sequence[Any], samples: int = SAMPLES) -> Tensor:
    """A batch of the kind that this stage works on."""
    random = torch_generator(2, "batch")
    if augmentation.stage == "features":
        return torch.randn(len(params), 40, 50, generator=random)
    return 0.1 * torch.randn(len(params), width(augmentation, params, samples), generator=random)


def first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


def test_the_augmentations_of_the_design_are_registered() -> None:
    wanted = {"noise", "babble", "reverb", "speed", "gain", "frequency_mask", "time_mask", "mixup"}
    assert wanted <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_docstring_has_shapes(name: str) -> None:
    assert "(B," in AUGMENTATIONS[name].summary


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_read(name: str) -> None:
    config = build(name).config
    AUGMENTATIONS.entry_of(config)  # reads the name, as the builder of a recipe does
    require_all_read(config)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_a_pure_function_of_the_generator(name: str) -> None:
    augmentation = build(name)
    assert draws(augmentation, 20) == draws(augmentation, 20)
    others = [augmentation.draw(generator(2, "draw", i), SAMPLES) for i in range(20)]
    assert name == "peak_guard" or others != draws(augmentation, 20)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_frozen_dataclasses_that_survive_a_log(name: str) -> None:
    augmenter = Augmenter([(name, build(name))])
    augmentation = build(name)
    params = [p for p in draws(augmentation, 8) if p is not None]
    assert params
    wave = batch(augmentation, params)
    replayed = []
    for drawn in params:
        assert is_dataclass(drawn)
        assert isinstance(drawn, augmentation.params_type)
        hash(drawn)  # only frozen dataclasses have one
        record = json.loads(json.dumps(augmenter.records((drawn,))))
        assert record[0] == json.loads(json.dumps(asdict(drawn)))
        replayed += augmenter.from_records(record)
    assert replayed == params
    again = first(augmentation.apply(wave, replayed))
    assert torch.equal(first(augmentation.apply(wave, params)), again)


@pytest.mark.parametrize("name", NAMES)
def test_workers_draw_the_same_and_carry_no_samples(name: str) -> None:
    augmentation = build(name)
    pickled = pickle.dumps(augmentation)
    assert len(pickled) < 20_000
    assert draws(pickle.loads(pickled), 10) == draws(augmentation, 10)


@pytest.mark.parametrize("name", NAMES)
def test_probability_zero_changes_nothing(name: str) -> None:
    augmentation = with_probability(name, 0.0)
    params = draws(augmentation, 50)
    assert params == [None] * 50
    wave = batch(augmentation, params[:3])
    assert torch.equal(first(augmentation.apply(wave, params[:3])), wave)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "speed"])
def test_probability_is_the_share_of_clips(name: str) -> None:
    """Within five standard deviations of the binomial distribution."""
    applied = sum(p is not None for p in draws(with_probability(name, 0.3), 1000))
    assert abs(applied - 300) < 5 * np.sqrt(1000 * 0.3 * 0.7)


@pytest.mark.parametrize("name", NAMES)
def test_same_parameters_give_the_same_bits_and_leave_the_input_alone(name: str) -> None:
    augmentation = build(name)
    params = draws(augmentation, 4)
    wave = batch(augmentation, params)
    before = wave.clone()
    one, two = augmentation.apply(wave, params), augmentation.apply(wave, params)
    assert torch.equal(first(one), first(two))
    assert torch.equal(wave, before)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_not_a_no_op(name: str) -> None:
    augmentation = build(name)
    params = draws(augmentation, 8)
    wave = batch(augmentation, params) * (30.0 if name == "peak_guard" else 1.0)
    changed = first(augmentation.apply(wave, params))
    if changed.shape == wave.shape:
        difference = (changed - wave).square().mean() / wave.square().mean()
        assert 10 * torch.log10(difference) > -60.0
    else:
        assert changed.shape == (8, SAMPLES)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "mixup"])
def test_item_zero_of_a_batch_equals_the_single_result(name: str) -> None:
    augmentation = build(name)
    params = [p for p in draws(augmentation, 8) if p is not None]
    wave = batch(augmentation, params)
    together = augmentation.apply(wave, params)
    alone = augmentation.apply(wave[:1], params[:1])
    assert torch.equal(together[:1], alone)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "mixup"])
def test_an_item_without_parameters_is_untouched(name: str) -> None:
    augmentation = build(name)
    drawn = [p for p in draws(augmentation, 8) if p is not None][:2]
    params = [drawn[0], None, drawn[1]]
    wave = batch(augmentation, params)
    changed = augmentation.apply(wave, params)
    assert torch.equal(changed[1], wave[1, : changed.shape[1]])


@pytest.mark.parametrize("samples", [1, 7, 400])
@pytest.mark.parametrize("name", NAMES)
def test_single_very_short_clips_work(name: str, samples: int) -> None:
    augmentation = build(name)
    params = draws(augmentation, 1, samples=samples)
    wave = batch(augmentation, params, samples)
    changed = first(augmentation.apply(wave, params))
    assert torch.isfinite(changed).all()
    assert changed.shape == (wave.shape if augmentation.stage == "features" else (1, samples))


@pytest.mark.parametrize("name", NAMES)
def test_silence_stays_silence_and_nothing_is_ever_not_finite(name: str) -> None:
    augmentation = build(name)
    params = draws(augmentation, 4)
    wave = torch.zeros_like(batch(augmentation, params))
    assert torch.equal(first(augmentation.apply(wave, params)).abs().sum(), torch.tensor(0.0))
    wave[1], wave[2], wave[3] = 0.5, 1e-7, 30.0
    assert torch.isfinite(first(augmentation.apply(wave, params))).all()


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_no_bit(name: str) -> None:
    augmentation = build(name)
    params = draws(augmentation, 3)
    wave = batch(augmentation, params)
    expected = first(augmentation.apply(wave, params))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = first(augmentation.apply(wave, params))
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_cuda_gives_the_same_without_waiting_for_the_device(name: str) -> None:
    config = AUGMENTATIONS.config(name)
    augmentation = AUGMENTATIONS[name].target(config, AugmentContext(seed=5))
    params = draws(augmentation, 6)
    wave = batch(augmentation, params)
    expected = first(augmentation.apply(wave, params))
    augmentation.to("cuda")
    on_device = wave.cuda()
    augmentation.apply(on_device, params)  # plans and workspaces are made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = first(augmentation.apply(on_device, params))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(result.cpu(), expected, rtol=1e-3, atol=1e-3)
