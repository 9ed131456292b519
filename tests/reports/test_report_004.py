"""Report 004 rebuilt: the nested network's NaN, which nothing stopped for eleven epochs.

The three mechanisms that benchmarks/nested_nan.py switches on and off, each first as the trainer
of the report had it (half-precision margin, skipped steps, batch norms that keep an infinity) and
then here.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.errors import TrainingStopped
from glottis.losses import LossOutput
from glottis.models import create_model
from glottis.report.history import read_metrics
from glottis.train.engine import Trainer
from glottis.train.state import State
from helpers.training import one_step, trainer

SIZE, CLASSES, MARGIN, SCALE = 16, 6, 0.2, 30.0
NESTED = {"name": "nested_original", "num_levels": 3, "embedding_size": SIZE}


def report_aam(x: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    """The margin of the trainer under autocast: cosines of 16 bits, a root without a floor."""
    unit, towards = functional.normalize(x).half(), functional.normalize(centres).half()
    cosine = (unit.float() @ towards.float().T).half()
    sine = torch.sqrt(1.0 - cosine * cosine)
    phi = cosine * math.cos(MARGIN) - sine * math.sin(MARGIN)
    one_hot = functional.one_hot(labels, len(centres)).to(cosine.dtype)
    logits = SCALE * (one_hot * phi + (1 - one_hot) * cosine)
    return functional.cross_entropy(logits.float(), labels)


def collapsed(model: Any, centres: Tensor) -> None:
    """Embeddings and classes on one line, as after too long a training."""
    with torch.no_grad():
        model.network.embedding.weight.mul_(1e-4)
        model.network.embedding.bias.fill_(1 / SIZE**0.5)
        centres.fill_(1 / SIZE**0.5)


def report_training(steps: int, *, checked: bool) -> tuple[Any, float, list[float]]:
    """Network, mean loss of the epoch as printed, all losses; ``checked``: a loss scaler's skip."""
    options = {name: value for name, value in NESTED.items() if name != "name"}
    model: Any = create_model("nested_original", seed=1, **options).train()
    torch.manual_seed(2)
    centres = nn.Parameter(torch.randn(CLASSES, SIZE))
    collapsed(model, centres)
    learned = [*model.parameters(), centres]
    adam = torch.optim.Adam(learned, lr=5e-4)
    losses = []
    for step in range(steps):
        drawn = torch.Generator().manual_seed(step)
        wave, labels = 0.1 * torch.randn(6, 6400, generator=drawn), torch.arange(6)
        loss = report_aam(model(wave), centres, labels)
        adam.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(learned, 5.0)  # "already present"
        if torch.isfinite(norm) or not checked:
            adam.step()
        losses.append(loss.item())
    finite = [loss for loss in losses if math.isfinite(loss)]
    return model, sum(finite) / len(finite), losses


def test_the_report_lost_its_weights_and_printed_a_loss() -> None:
    model, printed, losses = report_training(4, checked=False)
    assert math.isfinite(printed)  # the mean of what was left, step 1
    assert math.isfinite(losses[0])
    assert all(math.isnan(loss) for loss in losses[1:])
    assert torch.isnan(model.network.embedding.weight).all()


def test_with_a_loss_scaler_it_stopped_learning_and_said_nothing() -> None:
    model, printed, _ = report_training(4, checked=True)
    assert math.isfinite(printed)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    untouched = create_model("nested_original", seed=1, num_levels=3, embedding_size=SIZE)
    for (name, a), b in zip(model.named_parameters(), untouched.parameters(), strict=True):
        if not name.startswith("network.embedding"):
            assert torch.equal(a, b), name  # every step was skipped


def sick(tones: Path, tmp_path: Path, **changes: Any) -> Trainer:
    """The network, collapsed."""
    loss = {"name": "aam_softmax", "margin": MARGIN, "scale": SCALE}
    made = trainer(tones, tmp_path, model=NESTED, loss=loss, log__every_steps=1, **changes)
    collapsed(made.task.embedder, made.task.head.centres)
    return made


def test_our_margin_survives_the_collapse(tones: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        made = sick(tones, tmp_path / precision, train__precision=precision)
        stats = [one_step(made, index) for index in range(3)]
        assert sum(s["skipped"].item() for s in stats) == 0
        assert all(math.isfinite(s["grad_norm"].item()) for s in stats)
        assert all(torch.isfinite(p).all() for p in made.task.parameters())


def test_the_margin_of_the_report_is_stopped_here(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights as they were, every bad step counted and told, the run ended with what to do."""
    made = sick(tones, tmp_path, train__steps=30, train__skipped_budget=2)
    head = made.task.head

    def forward(x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        return LossOutput(report_aam(x, head.centres, labels), {})

    head.forward = forward
    before = {name: value.clone() for name, value in made.task.state_dict().items()}
    with (
        caplog.at_level(logging.WARNING, "glottis"),
        pytest.raises(TrainingStopped, match=r"H1.*loss or gradient that was not finite"),
    ):
        made.train(State())
    assert caplog.text.count("not finite and changed nothing") == 3
    for name, value in made.task.state_dict().items():
        assert torch.equal(value, before[name]), name
    lines = [line for line in read_metrics(tmp_path / "run") if "train/skipped_steps" in line]
    assert [line["train/skipped_steps"] for line in lines] == [1, 1, 1]
    assert not any("train/loss" in line for line in lines)  # there is no mean of no step


def overflow(module: nn.Module, inputs: Any) -> Any:
    return (inputs[0] * float("inf"), *inputs[1:])


def test_one_overflow_made_the_evaluation_of_the_report_nan_for_ever() -> None:
    """The step was skipped, the weights are finite, and no embedding ever is again."""
    model: Any = create_model("nested_original", seed=1, num_levels=3, embedding_size=SIZE).train()
    drawn = torch.Generator().manual_seed(5)
    for step in range(5):
        hook = model.network.levels[1].register_forward_pre_hook(overflow) if step == 1 else None
        model(0.1 * torch.randn(4, 6400, generator=drawn))  # no update: as a scaler skips it
        if hook is not None:
            hook.remove()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    with torch.no_grad():
        heard = model.eval()(0.1 * torch.randn(4, 6400, generator=drawn))
    assert not torch.isfinite(heard).any()


def test_one_overflow_leaves_nothing_behind_here(tones: Path, tmp_path: Path) -> None:
    made = trainer(tones, tmp_path, model=NESTED)
    network = made.task.embedder.network
    for index in range(4):
        hook = network.levels[1].register_forward_pre_hook(overflow) if index == 1 else None
        assert one_step(made, index)["skipped"].item() == (index == 1)
        if hook is not None:
            hook.remove()
    wave = 0.1 * torch.randn(4, 6400, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert torch.isfinite(made.task.embedder.eval()(wave)).all()


def test_the_mean_of_an_epoch_leaves_bad_steps_out_and_counts_them(
    tones: Path, tmp_path: Path
) -> None:
    """One NaN in an epoch: its mean was NaN, or (ignored) as if nothing had been."""
    losses = torch.tensor([3.0, float("nan"), 2.0])
    assert torch.isnan(losses.mean())
    assert losses.nanmean() == 2.5
    made = trainer(tones, tmp_path, model=NESTED, train__steps=3, log__every_steps=3)
    network, calls = made.task.embedder.network, []

    def poison(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        calls.append(1)
        return output * (float("nan") if len(calls) == 2 else 1.0)

    network.register_forward_hook(poison)
    made.train(State())
    (line,) = [line for line in read_metrics(tmp_path / "run") if "train/loss" in line]
    assert line["train/skipped_steps"] == 1
    assert 0 < line["train/loss"] < 50
