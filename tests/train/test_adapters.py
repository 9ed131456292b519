"""Adapters beside any network: what learns, what a checkpoint gives, what cannot be adapted."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.errors import ConfigError, MissingExtra, TrainingStopped
from glottis.models import create_model, load_model, load_weights, plain_state, read_card
from glottis.models import save_model as save
from glottis.train import train_recipe
from glottis.train.adapters import AdaptersConfig, add_adapters
from glottis.train.assemble import assemble
from glottis.train.bundle import replay
from glottis.train.recipe import resolve_phases
from glottis.train.state import State
from helpers.tones import merged, recipe, speaker_tree, spoof_tree

pytestmark = pytest.mark.skipif(find_spec("peft") is None, reason="needs the extra 'ssl'")

RESNET: dict[str, Any] = {"channels": 4, "embedding_size": 16}
SIZES: dict[str, dict[str, Any]] = {
    "resnetse34l": {"embedding_size": 16},
    "ecapa_512": {"channels": 16},
    "redimnet_b0": {},
    "resnet18_wespeaker": {"channels": 4},
    "lcnn": {},
}


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A folder with the weights that the runs begin with."""
    save(create_model("resnet18_wespeaker", seed=1, **RESNET), tmp_path / "start")
    return tmp_path / "start"


def tree(tones: Path, start: Path | None, *targets: str, **changes: Any) -> dict[str, Any]:
    adapters = {"rank": 2, "alpha": 4.0, "targets": list(targets)}
    init = None if start is None else str(start)
    short = {"evaluate__every_steps": 4, "checkpoint__every_steps": 2, "checkpoint__keep": 9}
    train = {"train__steps": 4, "optim__rate": 0.01, "log__every_steps": 1, "batch__size": 4}
    base = speaker_tree(tones, init=init, adapters=adapters)
    base["model"] = {"name": "resnet18_wespeaker", **RESNET}
    return merged(base, {**short, **train, **changes})


def test_only_adapters_and_loss_move_and_the_checkpoint_is_a_plain_network(
    tones: Path, start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = recipe(tree(tones, start, "network.stages.2", "network.embedding"))
    with caplog.at_level(logging.INFO, "glottis"):
        train_recipe(made, tmp_path / "run")
    plan = next(line for line in caplog.messages if line.startswith("phase 1 of 1"))
    share = float(plan.partition("network learn (")[2].partition(" %")[0])
    assert 0 < share < 25
    folder = tmp_path / "run" / "checkpoints" / "step-00000004"
    before, model = load_model(start), load_model(folder)
    card = read_card(folder)
    assert card["adapters"]["rank"] == 2
    assert card["parameters"] == model.num_parameters == before.num_parameters
    for name, value in model.state_dict().items():
        inside = name.startswith(("network.stages.2", "network.embedding"))
        adapted = inside and name.endswith(".weight") and value.ndim > 1
        assert torch.equal(value, before.state_dict()[name]) != adapted, name


def test_what_is_loaded_is_what_was_trained(tones: Path, start: Path, tmp_path: Path) -> None:
    """The merged layers give the output of layers and adapters apart."""
    made = assemble(recipe(tree(tones, start, "network")), tmp_path / "run")
    made.trainer.train(State())
    trained = made.trainer.task.embedder.eval()
    loaded = load_model(tmp_path / "run" / "checkpoints" / "step-00000004")
    wave = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.no_grad():
        torch.testing.assert_close(loaded(wave), trained(wave), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(load_model(start)(wave), loaded(wave), rtol=0.05)


@torch.no_grad()
def outputs(model: Any, wave: torch.Tensor) -> torch.Tensor:
    output = model(wave)
    return getattr(output, "embedding", output)


@pytest.mark.parametrize("name", SIZES)
def test_every_network_starts_as_its_weights_and_merges(name: str, tmp_path: Path) -> None:
    """Plain linear layers and convolutions of one and two dimensions, all of them."""
    plain = create_model(name, seed=0, **SIZES[name]).eval()
    model = create_model(name, seed=1, **SIZES[name]).eval()
    load_weights(model, plain.state_dict())
    add_adapters(model, AdaptersConfig(rank=3, alpha=1.5, targets=("network",)), seed=2)
    wave = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    torch.testing.assert_close(outputs(model, wave), outputs(plain, wave), atol=1e-5, rtol=1e-5)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    save(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.state_dict().keys() == plain.state_dict().keys()
    expected = outputs(model, wave)
    assert (expected - outputs(plain, wave)).abs().max() > 0.01 * expected.abs().max()
    torch.testing.assert_close(outputs(loaded, wave), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("average", [None, {"kind": "ema", "decay": 0.5}])
def test_a_resumed_run_ends_with_the_same_bits(
    average: dict[str, Any] | None, tones: Path, start: Path, tmp_path: Path
) -> None:
    made = recipe(
        tree(tones, start, "network.stages.3", adapters__dropout=0.2)
        | ({"average": average} if average else {})
    )
    train_recipe(made, tmp_path / "whole")
    train_recipe(made, tmp_path / "cut")
    checkpoint = tmp_path / "cut" / "checkpoints" / "step-00000002"
    train_recipe(made, tmp_path / "cut", resume=True, checkpoint=checkpoint)
    whole, cut = (
        (tmp_path / name / "checkpoints" / "latest" / "model.safetensors").read_bytes()
        for name in ("whole", "cut")
    )
    assert whole == cut


def test_an_adapted_checkpoint_starts_another_run(tones: Path, start: Path, tmp_path: Path) -> None:
    train_recipe(recipe(tree(tones, start, "network.stages.3")), tmp_path / "first")
    folder = tmp_path / "first" / "checkpoints" / "best"
    made = assemble(recipe(tree(tones, folder, "network", adapters=None)), tmp_path / "second")
    own = made.trainer.task.embedder.state_dict()
    assert all(torch.equal(own[name], value) for name, value in plain_state(folder).items())


def test_a_phase_adds_to_the_adapters_what_it_names(
    tones: Path, start: Path, tmp_path: Path
) -> None:
    phases = [
        {"name": "adapters", "train": {"steps": 1}},
        {"name": "more", "parts": ["network.embedding"], "train": {"steps": 1}},
    ]
    changes = {"phases": phases, "new_parts": ["network.embedding.bias"]}
    made = assemble(recipe(tree(tones, start, "network.stages.3", **changes)), tmp_path / "run")
    first, second = (
        {name for name in made.stages.rates(one) if not name.startswith("head.")}
        for one in made.stages.prepared
    )
    assert {n for n in first if ".lora_" not in n} == {"network.embedding.bias"}
    assert second - first == {"network.embedding.weight"}
    assert any(name.startswith("head.") for name in made.stages.rates(made.stages.prepared[0]))


def test_new_parts_learn_and_random_layers_are_told(
    tones: Path, start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "glottis"):
        assemble(recipe(tree(tones, None, "network.stages.3")), tmp_path / "random")
    assert "[O4]" in caplog.text
    caplog.clear()
    changes = {"new_parts": ["network.embedding.*"], "model__embedding_size": 8}
    with caplog.at_level(logging.WARNING, "glottis"):
        made = assemble(recipe(tree(tones, start, "network.embedding", **changes)), tmp_path / "a")
    assert "[O4]" not in caplog.text
    assert made.trainer.task.embedder.network.embedding.base_layer.weight.requires_grad


def test_a_step_that_was_not_finite_is_replayed_with_its_adapters(
    tones: Path, start: Path, tmp_path: Path
) -> None:
    changes = {"train__skipped_budget": 0, "nonfinite": {"action": "stop"}, "evaluate": {}}
    made = assemble(recipe(tree(tones, start, "network.stages.3", **changes)), tmp_path / "run")
    layer = made.trainer.task.embedder.network.stages[3][0].conv1
    layer.lora_B["default"].weight.data.fill_(float("nan"))
    with pytest.raises(TrainingStopped):
        made.trainer.train(State())
    (bundle,) = (tmp_path / "run").glob("nonfinite-*")
    found = replay(bundle)
    assert found.reproduced
    assert "stages.3.0.conv1.lora_B" in found.now.name


def test_a_countermeasure_whose_loss_has_no_parameters(tones: Path, tmp_path: Path) -> None:
    base = spoof_tree(tones, adapters={"targets": ["network.classifier"]}, train__steps=1)
    result = train_recipe(recipe(base), tmp_path / "run")
    assert result["steps"] == 1


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["network.nothing"], r"'network\.nothing' names no module[^$]*network\.stem"),
        (["network.stages.3", "network.stem_norm"], r"'network\.stem_norm' names only BatchNorm2d"),
    ],
)
def test_a_target_that_fits_nothing_is_refused(
    targets: list[str], said: str, tones: Path, start: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        assemble(recipe(tree(tones, start, *targets)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_convolutions_that_peft_cannot_adapt_are_refused_or_left_out() -> None:
    """ECAPA's inner convolutions are dilated: A would hear other frames."""
    model = create_model("ecapa_512", channels=16, seed=0)
    dilated = [n for n, m in model.named_modules() if max(getattr(m, "dilation", (1,))) > 1]
    with pytest.raises(ConfigError, match="names only Conv1d"):
        add_adapters(model, AdaptersConfig(targets=(dilated[0],)), seed=0)
    add_adapters(model, AdaptersConfig(targets=("network",)), seed=0)
    assert isinstance(model.get_submodule(dilated[0]), torch.nn.Conv1d)
    assert any(".lora_A." in name for name, _ in model.named_parameters())
    with pytest.raises(ConfigError, match="adapters of its own"):
        add_adapters(model, AdaptersConfig(targets=("network",)), seed=0)


def test_without_peft_the_install_line_is_said(
    tones: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"pip install 'glottis\[ssl\]'"):
        assemble(recipe(tree(tones, start, "network.stages.3")), tmp_path / "run")


def test_a_phase_cannot_change_the_adapters(tones: Path, start: Path) -> None:
    phase = {"name": "one", "adapters": {"rank": 1, "targets": ["network"]}}
    with pytest.raises(ConfigError, match="adapters"):
        resolve_phases(recipe(tree(tones, start, "network", phases=[phase])))
