"""Mixup, focal, label smoothing and dropout: read back from what was built, and they act.

Every option of these kinds that a recipe can have is found in the registries, so that one which is
added later is tested too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glottis.losses import LOSSES, build_loss
from glottis.models import MODELS, create_model
from helpers.models import SMALLER, forward, noise
from helpers.tones import spoof_tree
from helpers.training import one_step, trainer


def keys(registry: Any, *words: str) -> list[tuple[str, str]]:
    """(name, option) of every component with an option of that kind."""
    return [
        (entry.name, option)
        for entry in registry
        for option in entry.config.model_fields
        if any(word in option for word in words) and not option.startswith("lora")
    ]


DROPOUTS = [pair for pair in keys(MODELS, "dropout") if not pair[0].startswith("ssl_")]
LOSS_OPTIONS = keys(LOSSES, "smoothing", "gamma", "alpha")


def test_there_is_something_to_test() -> None:
    assert ("redimnet_b2", "aggregation_dropout") in DROPOUTS
    assert ("aasist", "head_dropout") in DROPOUTS
    assert ("nested", "nested_dropout") in DROPOUTS
    assert ("aam_softmax", "label_smoothing") in LOSS_OPTIONS
    assert ("softmax", "focal_gamma") in LOSS_OPTIONS
    assert ("focal", "alpha") in LOSS_OPTIONS


# ------------------------------------------------------------------------------ dropout


def rates(model: nn.Module) -> set[float]:
    """Of every layer that drops something."""
    found = {m.p for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd)}
    return found | {m.dropout for m in model.modules() if isinstance(m, nn.LSTM)}


def drawn(name: str, **options: Any) -> tuple[nn.Module, Tensor]:
    model = create_model(name, seed=0, **{**SMALLER.get(name, {}), **options})
    model.train()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        return model, torch.cat([part.flatten() for part in forward(model, noise(2, 6_000))])


@pytest.mark.parametrize(("name", "option"), DROPOUTS)
def test_a_dropout_is_in_the_network_and_drops(name: str, option: str) -> None:
    others = {key: 0.0 for one, key in DROPOUTS if one == name}
    plain, without = drawn(name, **others)
    assert 0.37 not in rates(plain)
    model, dropped = drawn(name, **{**others, option: 0.37})
    assert 0.37 in rates(model)
    assert not torch.allclose(without, dropped)
    model.eval()
    with torch.no_grad():
        first, second = (forward(model, noise(2, 6_000)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))  # it drops nothing


def test_the_dropout_of_a_recipe_reaches_the_step(tones: Path, tmp_path: Path) -> None:
    losses = []
    for rate in (0.0, 0.5):
        made = trainer(
            tones,
            tmp_path / str(rate),
            model={"name": "redimnet_b0", "projection_dropout": rate, **SMALLER["redimnet_b0"]},
        )
        assert (0.5 in rates(made.task.embedder)) == (rate == 0.5)
        torch.manual_seed(1)
        losses.append(one_step(made)["loss"].item())
    assert losses[0] != losses[1]


# ------------------------------------------------------------------------------ losses


def loss_of(head: Any) -> float:
    shape = (12, 16) if head.input == "embedding" else (12, 2)
    shape = (4, 3, 16) if head.batch == "grouped" else shape
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    classes = 2 if head.task == "spoof" else 4
    torch.manual_seed(5)  # a loss over sampled classes draws
    return float(head(rows, torch.arange(len(rows)) % classes).loss.detach())


@pytest.mark.parametrize(("name", "option"), LOSS_OPTIONS)
def test_an_option_of_a_loss_is_in_the_head_and_changes_the_loss(name: str, option: str) -> None:
    values = []
    target = LOSSES[name].target
    for value in CHANGED[option]:
        config = LOSSES.config(name, **{option: value})
        torch.manual_seed(1)
        head = build_loss(config, 16, 2 if target.task == "spoof" else 4)
        read = "class_weights" if option == "alpha" else option
        (kept,) = (getattr(module, read) for module in head.modules() if hasattr(module, read))
        assert torch.as_tensor(kept).tolist() == pytest.approx(torch.as_tensor(value).tolist())
        values.append(loss_of(head))
    assert values[0] != pytest.approx(values[1], rel=1e-4)


CHANGED: dict[str, tuple[Any, Any]] = {
    "label_smoothing": (0.0, 0.1),
    "focal_gamma": (0.0, 2.0),
    "gamma": (0.0, 2.0),
    "alpha": ((0.5, 0.5), (0.1, 0.9)),
}


@pytest.mark.parametrize(("option", "value"), [("label_smoothing", 0.1), ("focal_gamma", 2.0)])
def test_the_options_of_a_recipe_reach_its_head(
    tones: Path, tmp_path: Path, option: str, value: float
) -> None:
    plain = trainer(tones, tmp_path / "plain")
    made = trainer(tones, tmp_path / "made", **{f"loss__{option}": value})
    assert getattr(made.task.head, option) == value
    assert one_step(made)["loss"].item() != one_step(plain)["loss"].item()
    sizes = {"name": "matryoshka", "dims": [8, 16]}
    sizes["loss"] = {"name": "aam_softmax", option: value}
    nested = trainer(tones, tmp_path / "sizes", loss=sizes)
    found = {getattr(head, option) for head in nested.task.head.heads.values()}
    assert found == {value}


def test_the_focal_loss_of_a_countermeasure_reaches_its_head(tones: Path, tmp_path: Path) -> None:
    focal = {"name": "focal", "gamma": 1.5, "alpha": [0.1, 0.9]}
    made = trainer(tones, tmp_path, spoof_tree, loss=focal)
    assert made.task.head.gamma == 1.5
    assert made.task.head.class_weights.tolist() == pytest.approx([0.1, 0.9])
    other = trainer(tones, tmp_path / "other", spoof_tree, loss={**focal, "gamma": 0.0})
    losses = [one_step(one)["loss"].item() for one in (made, other)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


# ------------------------------------------------------------------------------ mixup


def test_mixup_is_drawn_as_the_recipe_says_and_changes_the_loss(
    tones: Path, tmp_path: Path
) -> None:
    mixup = {"name": "mixup", "probability": 1.0, "alpha": 0.7}
    made = trainer(tones, tmp_path / "made", augment=[mixup])
    assert made.task.augmenter is not None
    assert made.task.augmenter.names == ("mixup",)
    (batch,) = made.loader.batches(0, 1)
    drawn = [params[0] for params in batch.params]
    assert len({params.share for params in drawn}) == len(drawn)
    made.task.train()
    (part,) = batch.split(1)
    losses = [made.task.forward(part, made.precision).loss.item()]
    made.task.augmenter = None  # the same clips, unmixed
    losses.append(made.task.forward(part, made.precision).loss.item())
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)
    off = trainer(tones, tmp_path / "off", augment=[{**mixup, "probability": 0.0}])
    (batch,) = off.loader.batches(0, 1)
    assert [params[0] for params in batch.params] == [None] * len(batch)
