"""What is added to the loss of the head: a reconstruction, a teacher; and another last layer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.errors import ConfigError
from glottis.models import load_model, save_model
from glottis.models.parts.classifier import CosineClassifier
from glottis.report.history import read_metrics
from glottis.train import train_recipe
from glottis.train.engine import Trainer
from glottis.train.state import Evaluation
from helpers.tones import recipe, speaker_tree, spoof_tree
from helpers.training import one_step, trainer

DECODER = {
    **{"name": "lstm_autoencoder", "hidden_size": 16, "latent_size": 8, "lstm_size": 8},
    **{"embedding_size": 16, "reconstruct": True},
}


def gradients(made: Trainer) -> dict[str, torch.Tensor]:
    named = {n: p for n, p in made.task.named_parameters() if p.requires_grad}
    missing = [name for name, parameter in named.items() if parameter.grad is None]
    assert missing == []
    return {name: p.grad.clone() for name, p in named.items() if p.grad is not None}


# ------------------------------------------------------------------------------ reconstruction


def test_the_decoder_learns_from_the_reconstruction(tones: Path, tmp_path: Path) -> None:
    made = trainer(tones, tmp_path, model=DECODER, reconstruction={"weight": 0.5})
    stats = one_step(made)
    total = stats["loss"] + 0.5 * stats["loss_reconstruction"]
    torch.testing.assert_close(stats["loss_total"], total)
    decoder = {n: g for n, g in gradients(made).items() if ".decoder." in n}
    assert len(decoder) > 0
    assert all(gradient.abs().sum() > 0 for n, gradient in decoder.items() if "weight" in n)


def test_the_weight_scales_the_reconstruction_alone(tones: Path, tmp_path: Path) -> None:
    found = []
    for weight in (0.5, 1.0):
        made = trainer(
            tones,
            tmp_path / str(weight),
            model={**DECODER, "dropout": 0.0, "lstm_dropout": 0.0},
            reconstruction={"weight": weight},
            train__clip_norm=0.0,
        )
        one_step(made)
        found.append(gradients(made))
    one, two = found
    for name, gradient in one.items():
        if ".decoder." in name and gradient.abs().sum() > 1e-6:
            torch.testing.assert_close(2 * gradient, two[name], rtol=1e-4, atol=1e-7)
        if name.startswith("head."):
            torch.testing.assert_close(gradient, two[name])


def test_a_decoder_that_nothing_trains_is_refused(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="never trained"):
        trainer(tones, tmp_path, model=DECODER)


def test_a_reconstruction_without_a_decoder_is_refused(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.reconstruct=true"):
        trainer(tones, tmp_path, reconstruction={"weight": 0.5})


# ------------------------------------------------------------------------------ distillation


@pytest.fixture(scope="module")
def teacher(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train_recipe(recipe(speaker_tree(tones, train__steps=3, evaluate={})), folder)
    return folder


@pytest.fixture(scope="module")
def spoof_teacher(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train_recipe(recipe(spoof_tree(tones, train__steps=2, evaluate={})), folder)
    return folder


@pytest.mark.parametrize("kind", ["cosine", "kl", "relational"])
def test_a_student_learns_from_its_teacher(
    tones: Path, tmp_path: Path, teacher: Path, kind: str
) -> None:
    made = trainer(
        tones,
        tmp_path,
        seed=6,
        train__steps=12,
        distillation={"teacher": str(teacher), "kind": kind, "weight": 10.0},
    )
    values = [one_step(made, index)["loss_distillation"].item() for index in range(12)]
    assert sum(values[-3:]) < 0.95 * sum(values[:3])


def test_distilled_countermeasures_compare_logits(
    tones: Path, tmp_path: Path, spoof_teacher: Path
) -> None:
    for kind in ("cosine", "kl"):
        made = trainer(
            tones,
            tmp_path / kind,
            spoof_tree,
            distillation={"teacher": str(spoof_teacher), "kind": kind},
        )
        stats = one_step(made)
        assert torch.isfinite(stats["loss_distillation"])
        assert stats["loss_distillation"] > 0
        torch.testing.assert_close(stats["loss_total"], stats["loss"] + stats["loss_distillation"])


def test_pieces_of_a_batch_give_the_gradient_of_the_whole(
    tones: Path, tmp_path: Path, spoof_teacher: Path
) -> None:
    """Also where the head weighs items by class and the term does not."""
    found = []
    for pieces in (1, 2):
        made = trainer(
            tones,
            tmp_path / str(pieces),
            spoof_tree,
            model__attention_dropout=0.0,
            model__pool_dropout=0.0,
            model__branch_dropout=0.0,
            model__head_dropout=0.0,
            loss__class_weights=[0.1, 0.9],
            train__accumulation=pieces,
            train__clip_norm=0.0,
            distillation={"teacher": str(spoof_teacher), "weight": 3.0},
        )
        made.task.train()
        for module in made.task.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.requires_grad_(False)  # statistics of a piece are not those of the whole
        found.append((one_step(made), gradients(made)))
    (whole, one), (parts, two) = found
    torch.testing.assert_close(whole["loss_distillation"], parts["loss_distillation"])
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, two[name], rtol=2e-3, atol=1e-6)


def test_the_teacher_hears_every_clip_once_and_is_remembered(
    tones: Path, tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"teacher": str(teacher), "cache": str(tmp_path / "cache")}
    first = trainer(tones, tmp_path / "a", distillation=settings)
    (stored,) = (tmp_path / "cache").glob("teacher-*.safetensors")
    monkeypatch.setattr("glottis.train.teacher.load_model", None)  # asking again would fail
    second = trainer(tones, tmp_path / "b", distillation=settings)
    rows = torch.arange(5)
    one, two = (made.task.terms[0].targets(rows) for made in (first, second))  # type: ignore[attr-defined]
    assert torch.equal(one, two)
    assert stored.stat().st_size > 0


def test_a_run_with_another_teacher_is_another_run(
    tones: Path, tmp_path: Path, teacher: Path
) -> None:
    own = tmp_path / "teacher"
    shutil.copytree(teacher, own, symlinks=True)
    tree = speaker_tree(tones, evaluate={}, distillation={"teacher": str(own)}, train__steps=3)
    train_recipe(recipe(tree), tmp_path / "run")
    checkpoint = own / "checkpoints" / "latest"
    model = load_model(checkpoint)
    next(model.parameters()).data.mul_(1.5)
    save_model(model, checkpoint.resolve())
    with pytest.raises(ConfigError, match=r"data of the run in .* have changed"):
        train_recipe(recipe(tree), tmp_path / "run", resume=True)


def test_a_teacher_that_does_not_fit_is_refused(
    tones: Path, tmp_path: Path, teacher: Path, spoof_teacher: Path
) -> None:
    def made(**changes: Any) -> Trainer:
        return trainer(tones, tmp_path, **{"distillation__teacher": str(teacher), **changes})

    with pytest.raises(ConfigError, match="kind=relational"):
        made(model__embedding_size=8)
    with pytest.raises(ConfigError, match="spoof model"):
        made(distillation__teacher=str(spoof_teacher))
    with pytest.raises(ConfigError, match="another voice"):
        made(augment=[{"name": "speed", "as_new_speakers": True}])
    with pytest.raises(ConfigError, match="does not give them"):
        made(
            distillation__kind="kl",
            loss={"name": "prototypical"},
            batch={"speakers": 4, "utterances": 2},
        )
    with pytest.raises(ConfigError, match="temperature"):
        made(distillation__temperature=3.0)
    weights = teacher / "checkpoints" / "latest"
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("model.safetensors", "card.json"):
        (bare / name).write_bytes((weights / name).read_bytes())
    with pytest.raises(ConfigError, match="holds no loss head"):
        made(distillation__teacher=str(bare), distillation__kind="kl")


# ------------------------------------------------------------------------------ the last layer


@pytest.mark.parametrize("loss", ["oc_softmax", "p2s_grad"])
def test_a_loss_on_cosines_brings_its_classifier(tones: Path, tmp_path: Path, loss: str) -> None:
    tree = spoof_tree(tones, loss={"name": loss}, train__steps=2)
    train_recipe(recipe(tree), tmp_path / "run")
    model = load_model(tmp_path / "run" / "checkpoints" / "latest")
    assert isinstance(model.network.classifier, CosineClassifier)
    wave = torch.randn(3, 8000, generator=torch.Generator().manual_seed(1)) * 0.1
    with torch.no_grad():
        logits = model(wave).logits
    assert logits.abs().max() <= 1 + 1e-6
    if loss == "oc_softmax":
        assert torch.equal(logits[:, 0], -logits[:, 1])


@pytest.mark.parametrize("loss", ["oc_softmax", "p2s_grad"])
def test_no_parameter_is_left_without_a_gradient(tones: Path, tmp_path: Path, loss: str) -> None:
    made = trainer(tones, tmp_path, spoof_tree, loss={"name": loss})
    one_step(made)
    unused = made.task.embedder.network.unused_parameters
    assert "classifier.weight" not in unused
    assert gradients(made).keys() >= {"embedder.network.classifier.directions"}


# ------------------------------------------------------------------------------ kinds of batch


def test_a_matryoshka_loss_needs_the_batches_of_the_loss_inside(
    tones: Path, tmp_path: Path
) -> None:
    inside = {"name": "matryoshka", "dims": [8, 16], "loss": {"name": "prototypical"}}
    with pytest.raises(ConfigError, match="needs grouped batches"):
        trainer(tones, tmp_path / "flat", loss=inside)
    made = trainer(tones, tmp_path, loss=inside, batch={"speakers": 4, "utterances": 2})
    stats = one_step(made)
    assert {"loss_8", "loss_16"} <= stats.keys()


# ------------------------------------------------------------------------------ patience


def test_a_run_ends_when_patience_is_lost_and_a_resume_adds_nothing(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([0.3, 0.2, 0.2, 0.25, 0.1])
    monkeypatch.setattr(
        "glottis.train.evaluation._evaluation",
        lambda result, source, scores, select: Evaluation({"dev/eer": 0.0}, next(measured), {}),
    )
    tree = speaker_tree(tones, evaluate__every_steps=1, evaluate__patience=2, train__steps=6)
    result = train_recipe(recipe(tree), tmp_path / "run")
    assert (result["steps"], result["best_step"], result["best_development"]) == (4, 2, 0.2)
    again = train_recipe(recipe(tree), tmp_path / "run", resume=True)
    assert again["steps"] == 4
    assert len([r for r in read_metrics(tmp_path / "run") if "dev/eer" in r]) == 4


def test_patience_needs_something_that_selects(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing selects"):
        trainer(tones, tmp_path, evaluate={"patience": 3})
