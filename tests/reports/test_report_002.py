"""Report 002 rebuilt: classes that never learned, random frozen layers, dropout that was not there,
validation on training speakers.  Each ran for days without a word; here none gets past the start.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from glottis.errors import ConfigError, DataError, ModelError
from glottis.train import train_recipe
from glottis.train.assemble import assemble
from glottis.train.engine import Trainer
from glottis.train.optim import Optimiser
from glottis.train.state import State
from helpers.tones import recipe, speaker_tree
from helpers.training import trainer

HEAD_ONLY = {"name": "head only", "parts": ["network.embedding.*", "head.*"]}


def data() -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(4)
    labels = torch.arange(40) % 5
    centres = 2 * torch.randn(5, 12, generator=drawn)
    return centres[labels] + torch.randn(40, 12, generator=drawn), labels


def refused(tones: Path, out: Path, *phases: dict[str, Any], **changes: Any) -> str:
    tree = speaker_tree(tones, **{"evaluate": {}, **changes})
    with pytest.raises((ConfigError, ModelError, DataError)) as caught:
        assemble(recipe(tree | {"phases": list(phases)}), out)
    assert not out.exists()  # before anything was begun
    return str(caught.value)


# ------------------------------------------------------------------------------ class weights


def test_the_report_never_trained_its_classes_and_heard_nothing() -> None:
    x, labels = data()
    torch.manual_seed(1)
    network, centres = nn.Linear(12, 8), nn.Parameter(torch.randn(5, 8))
    optim = torch.optim.Adam(network.parameters(), lr=1e-2)  # the classes are in the criterion
    start, losses = centres.detach().clone(), []
    for _ in range(60):
        optim.zero_grad()
        cosine = functional.linear(functional.normalize(network(x)), functional.normalize(centres))
        loss = functional.cross_entropy(10 * cosine, labels)
        loss.backward()
        optim.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]  # it even looked like learning
    assert centres.grad is not None
    assert centres.grad.abs().sum() > 0
    assert torch.equal(centres, start)


def test_classes_that_no_phase_trains_are_refused(tones: Path, tmp_path: Path) -> None:
    said = refused(tones, tmp_path / "run", {"name": "network", "parts": ["network"]})
    assert "[O1] phase 'network' freezes 96 random values of the loss" in said  # 6 classes, 16 each
    assert "head.centres" in said


def test_every_class_weight_is_in_the_optimiser(tones: Path, tmp_path: Path) -> None:
    made = trainer(tones, tmp_path)
    inside = {id(p) for p in made.optim.parameters}
    assert {id(p) for p in made.task.head.parameters()} <= inside
    start = made.task.head.centres.detach().clone()
    made.train(State())
    assert not torch.equal(made.task.head.centres, start)


def test_an_optimiser_without_the_classes_stops_the_first_step(tones: Path, tmp_path: Path) -> None:
    """As the report made it; no recipe can, so it is put in from outside."""
    made = trainer(tones, tmp_path)
    whole = recipe(speaker_tree(tones)).optim
    device = torch.device("cpu")
    made.optim = Optimiser(whole, made.task.embedder, nn.Identity(), made.optim.schedule, device)
    with pytest.raises(ModelError, match=r"O1.*1 trainable parameters are in no group.*centres"):
        made.train(State())


def test_classes_may_stay_random_where_the_recipe_says_so(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The report's case as an experiment of its own."""
    tree = speaker_tree(tones, evaluate={}, allow=["O1"], train__steps=2)
    tree["phases"] = [{"name": "network", "parts": ["network"]}]
    with caplog.at_level(logging.WARNING, "glottis"):
        train_recipe(recipe(tree), tmp_path / "run")
    assert "[O1] phase 'network' freezes 96 random values of the loss" in caplog.text


def test_classes_that_an_earlier_phase_trained_may_be_frozen(tones: Path, tmp_path: Path) -> None:
    phases = [{"name": "all"}, {"name": "network", "parts": ["network"]}]
    tree = speaker_tree(tones, evaluate={}) | {"phases": phases}
    assert isinstance(assemble(recipe(tree), tmp_path / "run").trainer, Trainer)
    other = {**phases[1], "loss": {"name": "softmax"}}  # whose classes are new ones
    assert "[O1]" in refused(tones, tmp_path / "other", phases[0], other)


# ------------------------------------------------------------------------------ random frozen


class Published(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.stem, self.pooling = nn.Linear(12, 8), nn.Linear(8, size)
        self.projection = nn.Linear(size, 4)


def test_the_report_froze_random_layers_and_heard_nothing() -> None:
    published, network = Published(8), Published(16)  # the conversion asked for another width
    fitting = {
        name: value
        for name, value in published.state_dict().items()
        if network.state_dict()[name].shape == value.shape
    }
    network.load_state_dict(fitting, strict=False)  # "only affects initialization"
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.startswith("projection")
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert {"pooling.weight", "pooling.bias"} <= frozen - fitting.keys()


@pytest.fixture(scope="module")
def source(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of the same network with another pooling."""
    folder = tmp_path_factory.mktemp("source") / "run"
    tree = speaker_tree(tones, evaluate={}, train__steps=1, model__pooling="sap")
    train_recipe(recipe(tree), folder)
    return str(folder / "checkpoints" / "latest")


def test_weights_with_holes_are_refused_by_name(tones: Path, tmp_path: Path, source: str) -> None:
    said = refused(tones, tmp_path / "run", HEAD_ONLY, init=source, model__pooling="asp")
    assert "other shape: network.embedding.weight" in said


def test_holes_that_a_phase_freezes_are_refused_even_if_they_are_declared(
    tones: Path, tmp_path: Path, source: str
) -> None:
    changes: dict[str, Any] = {"init": source, "model__pooling": "asp"}
    changes["new_parts"] = ["network.embedding.weight"]
    said = refused(tones, tmp_path / "run", {"name": "classes", "parts": ["head"]}, **changes)
    assert "[O4] phase 'classes' freezes 4,096 random values of the network, which" in said
    assert "no phase has trained: network.embedding.weight" in said
    tree = speaker_tree(tones, evaluate={}, **changes) | {"phases": [HEAD_ONLY]}
    assert isinstance(assemble(recipe(tree), tmp_path / "run").trainer, Trainer)


def test_a_frozen_network_without_any_weights_is_told(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = speaker_tree(tones, evaluate={}) | {"phases": [HEAD_ONLY]}
    with caplog.at_level(logging.WARNING, "glottis"):
        assemble(recipe(tree), tmp_path / "run")
    assert "[O4] phase 'head only' freezes" in caplog.text
    assert "Give init" in caplog.text


# ------------------------------------------------------------------------------ dead keys


def report_network(config: dict[str, Any]) -> nn.Module:
    """Of the pretrained path: what it reads of its configuration."""
    return nn.Sequential(nn.Linear(12, config["out_channels"]), nn.ReLU(), nn.Linear(8, 4))


def test_the_report_set_dropouts_that_nothing_read() -> None:
    config = {"out_channels": 8, "dropout": 0.1, "feat_agg_dropout": 0.1}
    assert not any(isinstance(module, nn.Dropout) for module in report_network(config).modules())


@pytest.mark.parametrize("key", ["dropout", "feat_agg_dropout"])
def test_a_dropout_that_the_network_does_not_have_is_refused(
    tones: Path, tmp_path: Path, key: str
) -> None:
    said = refused(tones, tmp_path / "run", **{f"model__{key}": 0.1})
    assert f"model.{key}: unknown key" in said


def test_a_key_that_is_known_but_read_by_nothing_is_refused(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from glottis.models.redimnet import ReDimNet

    original = ReDimNet.__init__

    def deaf(self: Any, config: Any, *inputs: Any) -> None:
        original(self, config, *inputs)
        reads = object.__getattribute__(config, "__pydantic_private__")["_reads"]
        reads.discard("aggregation_dropout")

    monkeypatch.setattr(ReDimNet, "__init__", deaf)
    model = {"name": "redimnet_b0", "aggregation_dropout": 0.1, "embedding_size": 16}
    with pytest.raises(ConfigError, match=r"C2.*nothing reads 1 .*model\.aggregation_dropout"):
        trainer(tones, tmp_path, model=model)


# ------------------------------------------------------------------------------ validation


def test_validation_on_the_training_speakers_is_refused(tones: Path, tmp_path: Path) -> None:
    """The report validated on the folder that it trained on, and its installer did so again."""
    path = tmp_path / "trials.txt"
    rows = [(s, c) for s in range(4) for c in range(2)]
    pairs = [(a, b) for n, a in enumerate(rows) for b in rows[n + 1 :]]
    path.write_text(
        "".join(
            f"{int(a[0] == b[0])} s{a[0]:02d}_{a[1]}_bonafide.wav s{b[0]:02d}_{b[1]}_bonafide.wav\n"
            for a, b in pairs
        )
    )
    said = refused(tones, tmp_path / "run", evaluate={"trials": str(path)})
    assert "P1" in said


def test_a_loss_over_classes_of_other_speakers_is_refused(tones: Path, tmp_path: Path) -> None:
    """Validation losses of 18: chance over classes that the speakers do not belong to."""
    said = refused(tones, tmp_path / "run", evaluate={"dev_seen": {"split": "dev"}})
    assert "P3" in said
    assert "4 values of 'speaker' are not classes of the model" in said
