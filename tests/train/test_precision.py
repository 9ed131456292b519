"""The loss scale: halves on overflow, grows after a long clean stretch, survives a restart."""

from __future__ import annotations

import torch

from glottis.train.precision import GROWTH_INTERVAL, INITIAL_SCALE, Precision

CPU = torch.device("cpu")
YES, NO = torch.tensor(True), torch.tensor(False)


def test_only_fp16_is_scaled() -> None:
    assert Precision("fp32", CPU).scale.item() == 1
    assert Precision("bf16", CPU).scale.item() == 1
    assert Precision("fp16", CPU).scale.item() == INITIAL_SCALE
    bf16 = Precision("bf16", CPU)
    bf16.update(NO)
    assert bf16.scale.item() == 1


def test_overflow_halves_and_a_clean_stretch_doubles() -> None:
    precision = Precision("fp16", CPU)
    precision.update(NO)
    assert precision.scale.item() == INITIAL_SCALE / 2
    for _ in range(GROWTH_INTERVAL - 1):
        precision.update(YES)
    assert precision.scale.item() == INITIAL_SCALE / 2
    precision.update(YES)
    assert precision.scale.item() == INITIAL_SCALE
    precision.update(YES)
    assert precision.clean_steps.item() == 1


def test_an_overflow_restarts_the_clean_stretch() -> None:
    precision = Precision("fp16", CPU)
    for _ in range(10):
        precision.update(YES)
    precision.update(NO)
    assert precision.clean_steps.item() == 0


def test_the_scale_stays_between_its_limits() -> None:
    precision = Precision("fp16", CPU)
    for _ in range(60):
        precision.update(NO)
    assert precision.scale.item() > 0
    precision.scale.fill_(2.0**24)
    precision.clean_steps.fill_(GROWTH_INTERVAL - 1)
    precision.update(YES)
    assert precision.scale.item() == 2.0**24


def test_the_state_comes_back() -> None:
    precision = Precision("fp16", CPU)
    precision.update(NO)
    precision.update(YES)
    other = Precision("fp16", CPU)
    other.load_state_dict(precision.state_dict())
    assert other.scale.item() == precision.scale.item()
    assert other.clean_steps.item() == 1


def test_autocast_has_the_dtype_that_was_asked_for() -> None:
    weight = torch.randn(4, 4)
    for name, dtype in [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]:
        with Precision(name, CPU).autocast():  # type: ignore[arg-type]
            assert (weight @ weight).dtype == dtype
