"""Weighted cross-entropy and focal loss against torch and against each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from glottis.errors import ConfigError, ModelError
from glottis.losses import LOSSES, build_loss


def build(name: str, **options: object) -> nn.Module:
    return build_loss(LOSSES.config(name, **options), 160, 2)


LOGITS = torch.tensor([[2.0, -1.0], [0.5, 0.7], [-3.0, 4.0], [1.0, 1.0], [0.2, -0.1]])
LABELS = torch.tensor([0, 1, 1, 0, 1])


def test_weighted_cross_entropy_is_the_published_one() -> None:
    loss = build("weighted_cross_entropy", class_weights=(0.1, 0.9))
    expected = functional.cross_entropy(LOGITS, LABELS, weight=torch.tensor([0.1, 0.9]))
    torch.testing.assert_close(loss(LOGITS, LABELS).loss, expected)
    default = build("weighted_cross_entropy")
    torch.testing.assert_close(
        default(LOGITS, LABELS).loss, functional.cross_entropy(LOGITS, LABELS)
    )


def test_the_scale_of_the_class_weights_does_not_matter() -> None:
    small = build("weighted_cross_entropy", class_weights=(0.1, 0.9))
    large = build("weighted_cross_entropy", class_weights=(1.0, 9.0))
    torch.testing.assert_close(small(LOGITS, LABELS).loss, large(LOGITS, LABELS).loss)


def test_focal_without_focus_is_weighted_cross_entropy() -> None:
    focal = build("focal", gamma=0.0, alpha=(0.1, 0.9))
    plain = build("weighted_cross_entropy", class_weights=(0.1, 0.9))
    torch.testing.assert_close(focal(LOGITS, LABELS).loss, plain(LOGITS, LABELS).loss)


def test_focal_discounts_what_is_already_right() -> None:
    p = LOGITS.softmax(1)[torch.arange(5), LABELS]
    expected = ((1 - p) ** 2 * -p.log()).mean()
    torch.testing.assert_close(build("focal", gamma=2.0)(LOGITS, LABELS).loss, expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_gradient_is_finite_for_sure_items(gamma: float) -> None:
    logits = torch.tensor([[-500.0, 500.0], [500.0, -500.0], [0.0, 0.0]], requires_grad=True)
    build("focal", gamma=gamma)(logits, torch.tensor([1, 1, 0])).loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_focal_gradient_equals_the_closed_form() -> None:
    logits = LOGITS.double().requires_grad_()
    loss = build("focal", gamma=1.5, alpha=(1.0, 3.0)).double()
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS).loss, (logits,))


def test_chance_values() -> None:
    assert build("weighted_cross_entropy").chance_loss(2) == pytest.approx(math.log(2))
    assert build("focal", gamma=2.0).chance_loss(2) == pytest.approx(0.25 * math.log(2))


def test_class_weights_are_not_in_the_state_dict() -> None:
    assert build("focal").state_dict() == {}


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError):
        build("weighted_cross_entropy", class_weights=(0.0, 1.0))
    with pytest.raises(ModelError, match="not 3"):
        build_loss(LOSSES.config("focal"), 160, 3)
