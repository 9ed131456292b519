"""Losses against the public trainer's code: value, gradients and accuracy on given inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from glottis.losses import LOSSES, build_loss
from glottis.losses._common import cosines
from helpers import golden


def build(name: str, **options: object) -> nn.Module:
    return build_loss(LOSSES.config(name, **options), embedding_size=64, num_classes=50)


def check(
    vectors: dict[str, Tensor], tag: str, loss: nn.Module, x: Tensor, parameters: dict[str, Tensor]
) -> Tensor:
    """Compare loss, gradient of x and gradient norms; returns the statistics' accuracy."""
    x = x.clone().requires_grad_()
    labels = vectors["labels"] if x.ndim == 2 else torch.arange(len(x))
    value, stats = loss(x, labels)
    value.backward()
    assert float(value.detach()) == pytest.approx(float(vectors[f"{tag}.loss"]), rel=golden.LOSS)
    assert x.grad is not None
    assert golden.relative_error(x.grad, vectors[f"{tag}.grad_x"]) < golden.LOSS
    for name, parameter in parameters.items():
        expected = float(vectors[f"{tag}.gradnorm.{name}"])
        found = float(parameter.grad.norm())
        assert found == pytest.approx(expected, rel=golden.LOSS, abs=1e-6), name
    return stats["accuracy"]


def test_softmax(shared: Path) -> None:
    vectors = golden.read(shared, "vox_losses")
    loss = build("softmax")
    loss.classifier.weight.data.copy_(vectors["W"])
    loss.classifier.bias.data.copy_(vectors["b"])
    learned = {"fc.weight": loss.classifier.weight, "fc.bias": loss.classifier.bias}
    accuracy = check(vectors, "softmax", loss, vectors["x1"], learned)
    assert 100 * float(accuracy) == pytest.approx(float(vectors["softmax.prec1"]))


MARGINS = [(0.3, 15), (0.2, 30), (0.1, 30)]


def margin_accuracy(loss: nn.Module, x: Tensor, labels: Tensor) -> float:
    """The original counts hits after the margin; ours does not, so it is redone here."""
    logits = loss.logits(cosines(x, loss.centres), labels)
    return 100 * float((logits.argmax(1) == labels).float().mean())


@pytest.mark.parametrize(("margin", "scale"), MARGINS)
def test_am_softmax(shared: Path, margin: float, scale: int) -> None:
    vectors, tag = golden.read(shared, "vox_losses"), f"amsoftmax.m{margin}.s{scale}"
    loss = build("am_softmax", margin=margin, scale=float(scale))
    loss.centres.data.copy_(vectors["W"])
    check(vectors, tag, loss, vectors["x1"], {"W": loss.centres})
    expected = float(vectors[f"{tag}.prec1"])
    assert margin_accuracy(loss, vectors["x1"], vectors["labels"]) == pytest.approx(expected)


@pytest.mark.parametrize("easy", [False, True])
@pytest.mark.parametrize(("margin", "scale"), MARGINS)
def test_aam_softmax(shared: Path, margin: float, scale: int, easy: bool) -> None:
    vectors, tag = (
        golden.read(shared, "vox_losses"),
        f"aamsoftmax.m{margin}.s{scale}.easy{int(easy)}",
    )
    loss = build("aam_softmax", margin=margin, scale=float(scale), easy_margin=easy)
    loss.centres.data.copy_(vectors["W"])
    check(vectors, tag, loss, vectors["x1"], {"weight": loss.centres})
    expected = float(vectors[f"{tag}.prec1"])
    assert margin_accuracy(loss, vectors["x1"], vectors["labels"]) == pytest.approx(expected)


@pytest.mark.parametrize("utterances", [2, 3])
def test_angular_prototypical(shared: Path, utterances: int) -> None:
    vectors, tag = golden.read(shared, "vox_losses"), f"angleproto.n{utterances}"
    loss = build("angular_prototypical")
    learned = {"w": loss.scale, "b": loss.bias}
    accuracy = check(vectors, tag, loss, vectors[f"x{utterances}"], learned)
    assert 100 * float(accuracy) == pytest.approx(float(vectors[f"{tag}.prec1"]))


def test_aam_on_the_branch_beyond_pi_minus_margin(shared: Path) -> None:
    # `mrl_losses` has embeddings opposite to their class; each prefix is a loss of its own
    vectors = golden.read(shared, "mrl_losses")
    for dim in (64, 128, 192, 256):
        for tag, easy in (("aam", False), ("aam_easy", True)):
            if f"{tag}.{dim}.loss" not in vectors:
                continue
            config = LOSSES.config("aam_softmax", margin=0.2, scale=30.0, easy_margin=easy)
            loss = build_loss(config, embedding_size=dim, num_classes=100)
            loss.centres.data.copy_(vectors["weight"][:, :dim])
            x = vectors["emb"][:, :dim].clone().requires_grad_()
            value = loss(x, vectors["labels"]).loss
            value.backward()
            expected = float(vectors[f"{tag}.{dim}.loss"])
            assert float(value.detach()) == pytest.approx(expected, rel=golden.LOSS)
            assert x.grad is not None
            assert golden.relative_error(x.grad, vectors[f"{tag}.{dim}.grad_emb"][:, :dim]) < 1e-5
