"""Learning rates are functions of the count of applied steps, as device tensors."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from glottis.train.schedule import (
    ConstantConfig,
    CosineConfig,
    ExponentialConfig,
    Schedule,
    StepConfig,
)


def factors(schedule: Schedule, steps: int) -> list[float]:
    return [
        schedule.factor(torch.tensor(float(n), dtype=torch.float64)).item() for n in range(steps)
    ]


def test_cosine_goes_from_the_peak_to_its_share_at_the_last_step() -> None:
    values = factors(Schedule(CosineConfig(final_factor=0.05), 101, 10), 101)
    assert values[0] == pytest.approx(1.0)
    assert values[50] == pytest.approx((1 + 0.05) / 2)
    assert values[100] == pytest.approx(0.05)
    assert all(a > b for a, b in pairwise(values))


def test_cosine_is_the_closed_form_of_aasist() -> None:
    # clovaai/aasist anneals per step from 1e-4 to 5e-6: (1 + cos(pi n / N)) / 2 between the two
    values = factors(Schedule(CosineConfig(final_factor=0.05), 1001, 10), 1001)
    for n in (0, 137, 500, 999):
        expected = 5e-6 + (1e-4 - 5e-6) * (1 + math.cos(math.pi * n / 1000)) / 2
        assert 1e-4 * values[n] == pytest.approx(expected, rel=1e-9)


def test_warm_up_is_linear_and_reaches_the_peak() -> None:
    values = factors(Schedule(ConstantConfig(warmup_steps=4), 10, 5), 10)
    assert values == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])


def test_warm_up_joins_the_cosine_at_its_peak() -> None:
    values = factors(Schedule(CosineConfig(warmup_steps=10), 110, 5), 110)
    assert max(values) == pytest.approx(1.0)
    assert values[9] == pytest.approx(1.0)
    assert values[10] == pytest.approx(1.0)
    assert values[109] == pytest.approx(0.0, abs=1e-12)


def test_step_drops_every_so_many_epochs() -> None:
    values = factors(Schedule(StepConfig(factor=0.5, every_epochs=2), 50, 10), 50)
    assert values[19] == 1.0
    assert values[20] == pytest.approx(0.5)
    assert values[40] == pytest.approx(0.25)


def test_exponential_decays_by_a_constant_ratio() -> None:
    values = factors(Schedule(ExponentialConfig(final_factor=0.01), 21, 10), 21)
    assert values[20] == pytest.approx(0.01)
    assert values[10] == pytest.approx(0.1)
