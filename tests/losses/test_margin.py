"""Margin heads: finite where the plain formula is not, accuracy without margin, exact margins."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.losses import LOSSES, build_loss


def build(name: str, size: int = 16, classes: int = 6, **options: object) -> nn.Module:
    return build_loss(LOSSES.config(name, **options), size, classes)


def plain_aam(x: Tensor, centres: Tensor, labels: Tensor, margin: float, scale: float) -> Tensor:
    """Additive angular margin as it is usually written."""
    cosine = functional.linear(functional.normalize(x), functional.normalize(centres))
    sine = torch.sqrt((1.0 - cosine * cosine).clamp(0, 1))
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    shifted = torch.where(cosine > -math.cos(margin), shifted, cosine - margin * math.sin(margin))
    hot = functional.one_hot(labels, len(centres))
    return functional.cross_entropy(scale * (hot * shifted + (1 - hot) * cosine), labels)


def on_a_centre(loss: nn.Module, sign: float = 1.0) -> tuple[Tensor, Tensor]:
    """Embeddings at cosine ``sign`` with a centre: their own (item 0) and another one (item 1)."""
    centres = loss.centres.detach()
    x = sign * torch.stack([centres[0], centres[1]]) * 3.0
    return x.requires_grad_(), torch.tensor([0, 4])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_aam_gradient_is_finite_at_cosine_one_where_the_plain_form_is_not(
    dtype: torch.dtype,
) -> None:
    loss = build("aam_softmax", size=64)
    x, labels = on_a_centre(loss)
    with torch.autocast("cpu", dtype=dtype):
        plain_aam(x, loss.centres, labels, 0.2, 30.0).backward()
    assert not torch.isfinite(x.grad).all()
    x, labels = on_a_centre(loss)
    loss.zero_grad()
    with torch.autocast("cpu", dtype=dtype):
        loss(x, labels).loss.backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(loss.centres.grad).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("easy", [False, True])
def test_aam_gradient_is_finite_at_exact_cosines(sign: float, easy: bool) -> None:
    loss = build("aam_softmax", easy_margin=easy)
    with torch.no_grad():
        loss.centres.zero_().fill_diagonal_(1.0)  # so that the cosine is exactly one
    x, labels = on_a_centre(loss, sign)
    loss(x, labels).loss.backward()
    assert torch.isfinite(x.grad).all()


def test_aam_adds_the_margin_to_the_angle() -> None:
    loss = build("aam_softmax", margin=0.3)
    angles = torch.linspace(0.01, math.pi - 0.3 - 0.01, 50, dtype=torch.float64)
    torch.testing.assert_close(loss.with_margin(angles.cos()), (angles + 0.3).cos())


def test_aam_falls_with_the_angle_everywhere() -> None:
    for easy in (False, True):
        loss = build("aam_softmax", margin=0.4, easy_margin=easy)
        angles = torch.linspace(0.01, math.pi - 0.01, 500, dtype=torch.float64)
        values = loss.with_margin(angles.cos())
        if easy:  # within each half; there is a step at 90 degrees
            assert (values[:249].diff() < 0).all()
            assert (values[251:].diff() < 0).all()
        else:
            assert (values.diff() < 0).all()


def test_am_subtracts_the_margin() -> None:
    cosine = torch.linspace(-1, 1, 9)
    torch.testing.assert_close(build("am_softmax", margin=0.25).with_margin(cosine), cosine - 0.25)


@pytest.mark.parametrize("name", ["am_softmax", "aam_softmax"])
def test_accuracy_is_measured_without_the_margin(name: str) -> None:
    loss = build(name, size=2, classes=2, margin=0.5)
    with torch.no_grad():
        loss.centres.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    x = torch.tensor([[1.0, 0.9]])  # nearer to its class, but not by the margin
    label = torch.tensor([0])
    result = loss(x, label)
    assert float(result.stats["accuracy"]) == 1.0
    cosine = functional.normalize(x)
    assert int(loss.logits(cosine, label).argmax()) == 1


def test_without_margin_it_is_scaled_cosine_softmax() -> None:
    x, labels = torch.randn(5, 16), torch.tensor([0, 1, 2, 3, 4])
    losses = [build(name, margin=0.0, scale=7.0) for name in ("am_softmax", "aam_softmax")]
    losses[1].centres.data.copy_(losses[0].centres)
    cosine = functional.normalize(x) @ functional.normalize(losses[0].centres).T
    expected = functional.cross_entropy(7.0 * cosine, labels)
    for loss in losses:
        torch.testing.assert_close(loss(x, labels).loss, expected)


def test_a_zero_embedding_has_a_finite_gradient() -> None:
    loss = build("aam_softmax")
    x = torch.zeros(1, 16, requires_grad=True)
    loss(x, torch.tensor([0])).loss.backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("classes", "size", "expected"),
    [(5994, 64, 20.87), (5994, 128, 18.16), (5994, 192, 16.95), (5994, 256, 16.43)],
)
def test_the_chance_values_of_a_famous_untrained_head(
    classes: int, size: int, expected: float
) -> None:
    # simulated losses of random class centres that were once read as validation results
    loss = build("aam_softmax", size=size, classes=classes, margin=0.2, scale=30.0)
    assert loss.chance_loss(classes) == pytest.approx(expected, rel=0.012)


def test_chance_tends_to_the_simple_closed_form() -> None:
    loss = build("aam_softmax", size=2048, margin=0.2, scale=30.0)
    simple = math.log(999) + 30**2 / (2 * 2048) + 30 * math.sin(0.2)
    assert loss.chance_loss(1000) == pytest.approx(simple, rel=1e-3)


def test_the_collapse_value_of_a_known_plateau() -> None:
    loss = build("aam_softmax", size=512, classes=140, margin=0.2, scale=30.0)
    assert loss.collapse_loss(140) == pytest.approx(5.536, abs=0.01)
    assert build("am_softmax", margin=0.2).collapse_loss(140) == pytest.approx(
        math.log(139) + 6.0, abs=0.01
    )
