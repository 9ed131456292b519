"""How much of the gradient each term makes up: right, in pieces too, cheap, and said (rule O14)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from glottis.report.history import read_metrics
from glottis.train import train_recipe
from glottis.train.engine import Trainer
from glottis.train.shares import gradient_squares, shares
from glottis.train.state import State
from glottis.train.step import step
from glottis.train.watchers import ShareWatcher
from helpers.tones import recipe, speaker_tree, spoof_tree
from helpers.training import one_step, trainer

DECODER = {
    **{"name": "lstm_autoencoder", "hidden_size": 16, "latent_size": 8, "lstm_size": 8},
    **{"embedding_size": 16, "reconstruct": True, "dropout": 0.0, "lstm_dropout": 0.0},
}
NO_DROPOUT = {
    **{"model__attention_dropout": 0.0, "model__pool_dropout": 0.0},
    **{"model__branch_dropout": 0.0, "model__head_dropout": 0.0},
}


@pytest.fixture(scope="module")
def teacher(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train_recipe(recipe(speaker_tree(tones, train__steps=1, evaluate={})), folder)
    return str(folder)


@pytest.fixture(scope="module")
def spoof_teacher(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train_recipe(recipe(spoof_tree(tones, train__steps=1, evaluate={})), folder)
    return str(folder)


def found_in(stats: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in stats.items() if name.startswith("share_")}


def test_the_shares_are_those_of_gradients_by_hand(
    tones: Path, tmp_path: Path, teacher: str
) -> None:
    settings = {"teacher": teacher, "weight": 3.0}
    made = trainer(tones, tmp_path, seed=6, distillation=settings)
    seen: list[torch.Tensor] = []
    made.task.embedder.network.register_forward_hook(lambda m, i, out: seen.append(out))
    (part,) = next(made.loader.batches(0, 1)).split(1)
    measured = found_in(one_step(made, measure=True))
    embedding = seen[0].detach().requires_grad_(True)
    fresh = trainer(tones, tmp_path, seed=6, distillation=settings)  # as it was before the step
    (term,) = fresh.task.terms
    loss = fresh.task.head(embedding, part.labels).loss
    imitation = 3.0 * term(embedding, part, None).mean()
    lengths = [
        torch.autograd.grad(value, embedding)[0].norm().item() for value in (loss, imitation)
    ]
    expected = [length / sum(lengths) for length in lengths]
    assert measured == pytest.approx(
        {"share_loss": expected[0], "share_distillation": expected[1]}, rel=1e-4
    )


def test_pieces_of_a_batch_have_the_shares_of_the_whole(
    tones: Path, tmp_path: Path, spoof_teacher: str
) -> None:
    found = []
    for pieces in (1, 3):
        made = trainer(
            tones,
            tmp_path / str(pieces),
            spoof_tree,
            **NO_DROPOUT,
            seed=6,
            loss__class_weights=[0.1, 0.9],
            train__accumulation=pieces,
            distillation={"teacher": spoof_teacher, "weight": 3.0},
        )
        for module in made.task.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.requires_grad_(False)  # statistics of a piece are not those of the whole
        found.append(found_in(one_step(made, measure=True)))
    assert found[0].keys() == {"share_loss", "share_distillation"}
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_a_reconstruction_is_weighed_where_it_meets_the_loss(tones: Path, tmp_path: Path) -> None:
    """At the code: the decoder hears no embedding, whose gradient it could have a share of."""
    found = []
    for weight in (0.5, 1.0):
        settings = {"weight": weight}
        made = trainer(tones, tmp_path / str(weight), model=DECODER, reconstruction=settings)
        found.append(found_in(one_step(made, measure=True)))
    odds = [one["share_reconstruction"] / one["share_loss"] for one in found]
    assert odds[1] == pytest.approx(2 * odds[0], rel=1e-3)
    assert sum(found[0].values()) == pytest.approx(1.0)


def test_outputs_that_do_not_lead_to_each_other_are_weighed_together() -> None:
    """As those of one compiled piece, or of a frozen network with a classifier that learns."""
    from glottis.models import SpoofOutput

    embedding, logits = (torch.ones(2, 3, requires_grad=True) for _ in range(2))
    values = {"loss": 3 * logits.sum(), "term": embedding.sum()}
    one = torch.ones(())
    found = shares(gradient_squares(values, SpoofOutput(embedding, logits), one))
    assert [float(value) for value in found.values()] == pytest.approx([0.75, 0.25])
    frozen = SpoofOutput(embedding.detach(), logits)
    found = shares(gradient_squares({**values, "term": embedding.detach().sum()}, frozen, one))
    assert [float(value) for value in found.values()] == [1.0, 0.0]
    nothing = SpoofOutput(embedding.detach(), logits.detach())
    assert shares(gradient_squares(values, nothing, one)) == {}


def test_the_metrics_hold_them_and_a_bad_step_leaves_none(
    tones: Path, tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    original = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: measured.append(1) or original(*a, **k)
    )
    settings = {"teacher": teacher}
    changes: dict[str, object] = {"checkpoint__every_steps": 6, "evaluate": {"every_steps": 6}}
    made = trainer(tones, tmp_path, train__steps=6, seed=6, distillation=settings, **changes)
    network, calls = made.task.embedder.network, []

    def poison(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return output * (float("nan") if len(calls) == 4 else 1.0)

    network.register_forward_hook(poison)
    made.train(State())
    assert len(measured) == 3 * 2  # lines of every second step, two gradients each
    lines = [line for line in read_metrics(tmp_path / "run") if "train/loss" in line]
    assert [line["train/skipped_steps"] for line in lines] == [0, 1, 0]
    assert ["train/share_loss" in line for line in lines] == [True, False, True]
    for line in (lines[0], lines[2]):
        both = line["train/share_loss"] + line["train/share_distillation"]
        assert both == pytest.approx(1.0)


def test_a_loss_without_terms_has_no_shares(tones: Path, tmp_path: Path) -> None:
    assert found_in(one_step(trainer(tones, tmp_path), measure=True)) == {}


def counted(made: Trainer, *, measure: bool) -> int:
    with FlopCounterMode(display=False) as counter:
        one_step(made, measure=measure)
    return counter.get_total_flops()


def test_measuring_costs_the_way_back_through_the_loss_alone(
    tones: Path, tmp_path: Path, teacher: str
) -> None:
    made = trainer(tones, tmp_path, distillation={"teacher": teacher, "kind": "kl"})
    plain = counted(made, measure=False)
    extra = counted(made, measure=True) - plain
    rows = 8 * 16 * 6  # batch, embedding size, classes
    assert extra == 2 * (2 * rows)  # one product of matrices for each of the two terms
    assert extra < 0.001 * plain


def test_measuring_reads_nothing_from_the_device(
    tones: Path, tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(tones, tmp_path, distillation={"teacher": teacher})
    made.task.train()
    batch = next(made.loader.batches(0, 1))
    reads: list[str] = []
    for name in ("item", "tolist", "__bool__", "__float__"):
        original = getattr(torch.Tensor, name)

        def read(self: Any, name: str = name, original: Any = original) -> Any:
            reads.append(name)
            return original(self)

        monkeypatch.setattr(torch.Tensor, name, read)
    task, optim, precision = made.task, made.optim, made.precision
    step(task, batch, optim, precision, pieces=made.pieces, clip_norm=5.0, measure=True)
    assert reads == []


def lines(*pairs: tuple[float, float]) -> Iterator[dict[str, float]]:
    return ({"share_loss": 1 - x - y, "share_a": x, "share_b": y, "loss": 1.0} for x, y in pairs)


def said(pairs: list[tuple[float, float]], caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    watcher = ShareWatcher()
    for number, line in enumerate(lines(*pairs), 1):
        watcher.after_step(10 * number, line)
    return caplog.messages


def test_a_term_without_weight_and_a_term_above_all_are_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert said([(0.3, 0.2)] * 9, caplog) == []
    assert said([(0.3, 0.001), (0.3, 0.02), (0.3, 0.02)] * 2, caplog) == []  # one line is nothing
    (text,) = said([(0.3, 0.00008)] * 9, caplog)  # report 004's sequel: 0.008 %
    assert text.startswith("[O14] 'b' makes up 0.008 % of the gradient and 'loss' 70 % (step 30)")
    (text,) = said([(0.96, 0.02)] * 9, caplog)
    assert "'a' 96 % (step 30)" in text


def test_a_weak_teacher_is_told_in_a_run(
    tones: Path, tmp_path: Path, teacher: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"teacher": teacher, "weight": 1e-5}
    tree = speaker_tree(tones, train__steps=4, seed=6, evaluate={}, distillation=settings)
    tree["log"]["every_steps"] = 1
    with caplog.at_level(logging.WARNING, "glottis"):
        train_recipe(recipe(tree), tmp_path / "run")
    (text,) = [message for message in caplog.messages if message.startswith("[O14]")]
    assert "'distillation' makes up" in text
