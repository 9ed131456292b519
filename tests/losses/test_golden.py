"""Losses against the public trainer's code: value, gradients and accuracy on given inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.losses import LOSSES, build_loss
from glottis.losses._common import cosines
from glottis.losses.triplet import batch_triplets, semi_hard
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


@pytest.mark.parametrize("utterances", [2, 3])
def test_prototypical(shared: Path, utterances: int) -> None:
    vectors, tag = golden.read(shared, "vox_losses"), f"proto.n{utterances}"
    accuracy = check(vectors, tag, build("prototypical"), vectors[f"x{utterances}"], {})
    assert 100 * float(accuracy) == pytest.approx(float(vectors[f"{tag}.prec1"]))


@pytest.mark.parametrize("utterances", [2, 3])
def test_ge2e_with_the_clamp_of_the_original(shared: Path, utterances: int) -> None:
    vectors, tag = golden.read(shared, "vox_losses"), f"ge2e.n{utterances}"
    loss = build("ge2e", clamp_cosines=True)
    learned = {"w": loss.scale, "b": loss.bias}
    accuracy = check(vectors, tag, loss, vectors[f"x{utterances}"], learned)
    assert 100 * float(accuracy) == pytest.approx(float(vectors[f"{tag}.prec1"]))


def test_softmax_prototypical(shared: Path) -> None:
    vectors, tag = golden.read(shared, "vox_losses"), "softmaxproto"
    loss = build("softmax_prototypical")
    classifier, angular = loss.softmax.classifier, loss.prototypical
    classifier.weight.data.copy_(vectors["W"])
    classifier.bias.data.copy_(vectors["b"])
    x = vectors["x2"].clone().requires_grad_()
    result = loss(x, vectors["labels"])
    result.loss.backward()
    expected = float(vectors[f"{tag}.loss"])
    assert float(result.loss.detach()) == pytest.approx(expected, rel=golden.LOSS)
    assert x.grad is not None
    assert golden.relative_error(x.grad, vectors[f"{tag}.grad_x"]) < golden.LOSS
    assert 100 * float(result.stats["accuracy"]) == pytest.approx(float(vectors[f"{tag}.prec1"]))
    learned = {
        "softmax.fc.weight": classifier.weight,
        "softmax.fc.bias": classifier.bias,
        "angleproto.w": angular.scale,
        "angleproto.b": angular.bias,
    }
    for name, parameter in learned.items():
        expected = float(vectors[f"{tag}.gradnorm.{name}"])
        assert float(parameter.grad.norm()) == pytest.approx(expected, rel=golden.LOSS, abs=1e-6)


@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0])
def test_triplet_with_the_hardest_negative(shared: Path, margin: float) -> None:
    # the original adds 1e-6 to every component of a difference; 7e-6 of the smallest loss
    vectors, tag = golden.read(shared, "vox_losses"), f"triplet.hard.m{margin}"
    x = vectors["x2"].clone().requires_grad_()
    value = build("triplet", margin=margin, mining="hard")(x, torch.arange(20)).loss
    value.backward()
    assert float(value.detach()) == pytest.approx(float(vectors[f"{tag}.loss"]), rel=1e-5)
    assert x.grad is not None
    assert golden.relative_error(x.grad, vectors[f"{tag}.grad_x"]) < 1e-5


def test_the_semi_hard_negatives_are_those_of_the_original(shared: Path) -> None:
    vectors = golden.read(shared, "vox_losses")
    found = semi_hard(vectors["triplet.sim_matrix"], 0.2)
    assert torch.equal(found, vectors["triplet.semihard_mask.m0.2"].bool())


@pytest.mark.parametrize(("mining", "tag"), [("batch_hard", "hard"), ("batch_all", "all")])
def test_triplet_over_the_batch(shared: Path, mining: str, tag: str) -> None:
    vectors = golden.read(shared, "mrl_losses")
    x = functional.normalize(vectors["emb"][:, :128]).requires_grad_()
    value = batch_triplets(x, vectors["triplet.labels"], 0.3, mining)[0].mean()
    value.backward()
    expected = float(vectors[f"triplet.{tag}.loss"])
    assert float(value.detach()) == pytest.approx(expected, rel=golden.LOSS)
    assert x.grad is not None
    assert golden.relative_error(x.grad, vectors[f"triplet.{tag}.grad"]) < 1e-4


def test_sub_centres(shared: Path) -> None:
    vectors = golden.read(shared, "mrl_losses")
    config = LOSSES.config("sub_centre_aam", centres=3, top_k=0)
    loss = build_loss(config, embedding_size=256, num_classes=100)
    loss.centres.data.copy_(vectors["subcenter.weight"])
    x = vectors["emb"].clone().requires_grad_()
    value = loss(x, vectors["labels"]).loss
    value.backward()
    assert float(value.detach()) == pytest.approx(float(vectors["subcenter.loss"]), rel=golden.LOSS)
    assert x.grad is not None
    assert golden.relative_error(x.grad, vectors["subcenter.grad_emb"]) < golden.LOSS
    norm = float(loss.centres.grad.norm())
    assert norm == pytest.approx(float(vectors["subcenter.grad_weight_norm"]), rel=golden.LOSS)


@pytest.mark.parametrize("easy", [False, True])
@pytest.mark.parametrize("weights", ["eq", "mix"])
@pytest.mark.parametrize("normalise", [0, 1])
def test_matryoshka(shared: Path, easy: bool, weights: str, normalise: int) -> None:
    vectors = golden.read(shared, "mrl_losses")
    tag = f"{'aam_easy' if easy else 'aam'}.mrl.norm{normalise}.w{weights}"
    given = {"eq": [1.0, 1.0, 1.0, 1.0], "mix": [1.0, 0.5, 0.25, 2.0]}[weights]
    inner = {"name": "aam_softmax", "margin": 0.2, "scale": 30.0, "easy_margin": easy}
    config = LOSSES.config("matryoshka", dims=[64, 128, 192, 256], weights=given, loss=inner)
    loss = build_loss(config, embedding_size=256, num_classes=100)
    centres = loss.heads[str(loss.dims[-1])].centres
    centres.data.copy_(vectors["weight"])
    x = vectors["emb"].clone().requires_grad_()
    value = loss(x, vectors["labels"]).loss
    value.backward()
    expected = float(vectors[f"{tag}.total"])
    assert float(value.detach()) == pytest.approx(expected, rel=golden.LOSS)
    assert x.grad is not None
    assert golden.relative_error(x.grad, vectors[f"{tag}.grad_emb"]) < golden.LOSS
    reference = vectors[f"{tag}.grad_weight"]
    if reference.numel() > 1:
        assert golden.relative_error(centres.grad, reference) < golden.LOSS
    else:
        assert float(centres.grad.norm()) == pytest.approx(float(reference), rel=golden.LOSS)


@pytest.mark.parametrize(
    ("scale", "real", "fake"), [(20.0, 0.9, 0.2), (20.0, 0.9, 0.5), (5.0, 0.8, 0.3)]
)
def test_oc_softmax(shared: Path, scale: float, real: float, fake: float) -> None:
    vectors, tag = golden.read(shared, "ocsoftmax"), f"oc.a{scale}.r{real}.f{fake}"
    config = LOSSES.config("oc_softmax", scale=scale, bonafide_margin=real, spoof_margin=fake)
    x = vectors["x"].clone().requires_grad_()
    centre = vectors["center"].clone().requires_grad_()
    cosine = cosines(x, centre)
    assert golden.relative_error(cosine[:, 0], vectors[f"{tag}.scores"]) < golden.LOSS
    labels = 1 - vectors["labels"]  # 0 is bona fide in the original
    value = build_loss(config, 256, 2)(torch.cat([-cosine, cosine], dim=1), labels).loss
    value.backward()
    assert float(value.detach()) == pytest.approx(float(vectors[f"{tag}.loss"]), rel=golden.LOSS)
    for leaf, name in ((x, "grad_x"), (centre, "grad_center")):
        assert leaf.grad is not None
        assert golden.relative_error(leaf.grad, vectors[f"{tag}.{name}"]) < golden.LOSS
