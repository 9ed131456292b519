"""The nested network against its published code: 3, 4 and 5 levels, SAP and ASP, two fusions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glottis.models import SpeakerModel, import_weights
from helpers import golden

# vectors, parameters, embedding size, mel bins, options that the file must imply
CASES = [
    ("nested_3level_sap", 392_321, 256, 64, {"num_levels": 3, "nested_levels": (3,)}),
    ("nested_4level_sap", 1_619_842, 512, 80, {"num_levels": 4, "nested_levels": (3, 4)}),
    ("nested_4level_asp", 1_881_986, 512, 80, {"pooling": "asp", "fusion": "concat"}),
    ("nested_4level_sap_attention", 1_620_839, 512, 80, {"pooling": "sap", "fusion": "attention"}),
    ("nested_5level_asp", 6_564_739, 512, 80, {"num_levels": 5, "nested_levels": (3, 4, 5)}),
]
NAMES = [case[0] for case in CASES]


@pytest.fixture
def load(shared: Path, tmp_path: Path):
    def imported(name: str, **features: str) -> SpeakerModel:
        file = shared / "golden" / f"dim_{name}_weights.safetensors"
        if not file.exists():
            state = golden.filled_state(shared, f"dim_{name}", seed=11)
            file = golden.save_state(state, tmp_path / f"{name}.safetensors")
        model = import_weights("nested", file, features=features)
        assert isinstance(model, SpeakerModel)
        return model

    return imported


def training_loss(embeddings: Tensor) -> Tensor:
    return embeddings.square().mean() + 0.01 * embeddings[:, :8].sum()


@pytest.mark.parametrize(("name", "count", "size", "mels", "options"), CASES)
def test_embeddings_equal_the_original(load, shared, name, count, size, mels, options) -> None:
    vectors = golden.read(shared, "dim_models_io")
    model = load(name).eval()
    assert model.num_parameters == count
    assert (model.embedding_size, model.frontend.num_features) == (size, mels)
    assert {key: getattr(model.config, key) for key in options} == options
    with torch.inference_mode():
        together = model(vectors["input.wave"])
        alone = torch.cat([model(wave[None]) for wave in vectors["input.wave"]])
    reference = vectors[f"{name}.eval.emb"]
    assert golden.relative_error(together, reference) < golden.OUTPUT
    assert golden.relative_error(alone, reference) < golden.OUTPUT


@pytest.mark.parametrize("name", NAMES)
def test_every_map_equals_the_original(load, shared, name) -> None:
    vectors = golden.read(shared, "dim_models_io")
    model = load(name).eval()
    network = model.network
    maps: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda *call, key=key: maps.__setitem__(key, call[-1].clone()))
        for key, module in [
            ("fusion", network.fusion),
            *((f"levels.{i}", level) for i, level in enumerate(network.levels)),
        ]
    ]
    handles.append(
        network.levels[0].register_forward_pre_hook(
            lambda _, inputs: maps.__setitem__("input_conv", inputs[0].clone())
        )
    )
    with torch.inference_mode():
        maps["instancenorm"] = model.frontend(vectors["input.wave"])
        network(maps["instancenorm"])
    assert len(maps) == len(network.levels) + 3
    for key, value in maps.items():
        expected = vectors[f"{name}.eval.{key}.stat"]
        found = torch.stack([value.mean(), value.abs().mean(), value.norm()])
        assert golden.relative_error(found, expected) < golden.OUTPUT, key
        if f"{name}.eval.{key}.slice" in vectors:
            values = value.flatten(1)
            part = values[:, :: values.shape[1] // 512][:, :512]
            expected = vectors[f"{name}.eval.{key}.slice"]
            assert golden.relative_error(part, expected) < golden.OUTPUT, key


@pytest.mark.parametrize("name", NAMES)
def test_training_loss_equals_the_original(load, shared, name) -> None:
    vectors = golden.read(shared, "dim_models_io")
    model = golden.without_dropout(load(name)).train()
    embeddings = model(vectors["input.wave"])
    assert golden.relative_error(embeddings, vectors[f"{name}.train.emb"]) < golden.OUTPUT
    expected = float(vectors[f"{name}.train.loss"])
    assert float(training_loss(embeddings).detach()) == pytest.approx(expected, rel=golden.LOSS)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_the_original(load, shared, name) -> None:
    # float64, because noise in the features flips ReLUs
    vectors = golden.read(shared, "dim_models_io")
    model = golden.without_dropout(load(name, precision="double"))
    network = model.network.double().train()
    training_loss(network(model.frontend(vectors["input.wave"]).double())).backward()
    reference = golden.reference_norms(vectors, f"{name}.train.gradnorm.")
    assert "levels.2.nested_weight" in reference
    golden.assert_gradients_match(golden.gradient_norms(network), reference)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("levels.2.nested_weight", "levels.3.nested_weight"),
        ("levels.2.prev_aggregator.1.bias", "levels.2.conv1.1.bias"),
    ],
)
def test_two_swapped_tensors_break_the_parity(shared, tmp_path, first, second) -> None:
    vectors = golden.read(shared, "dim_models_io")
    state = golden.swapped(golden.read(shared, "dim_nested_4level_sap_weights"), first, second)
    file = golden.save_state(state, tmp_path / "swapped.safetensors")
    with torch.inference_mode():
        embeddings = import_weights("nested", file).eval()(vectors["input.wave"])
    assert golden.relative_error(embeddings, vectors["nested_4level_sap.eval.emb"]) > golden.OUTPUT


def test_the_gates_of_a_checkpoint_are_told(load, shared) -> None:
    state = golden.read(shared, "dim_nested_4level_sap_weights")
    told = load("nested_4level_sap").network.statistics()
    for number in (3, 4):
        raw = float(state[f"levels.{number - 1}.nested_weight"])
        assert float(told[f"nested_raw_{number}"]) == raw
        assert float(told[f"nested_gate_{number}"]) == pytest.approx(1 / (1 + math.exp(-raw)))
