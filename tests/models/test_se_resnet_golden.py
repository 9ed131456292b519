"""SE-ResNet against the public detector's network: small, 2-2-2-2 and 3-4-6-3, and its features."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from glottis.features import FEATURES, build_features
from glottis.models import SpoofModel, import_weights
from glottis.models.se_resnet import LFCC, MEL, MFCC
from helpers import golden

CASES = [
    ("seresnet_small", "se_resnet_small", 579_731),
    ("seresnet_conf_2222", "se_resnet", 11_981_251),
    pytest.param("seresnet_default_3463", "se_resnet_deep", 22_159_555, marks=pytest.mark.slow),
]
ROUNDING = {"seresnet_small": 1.5e-5, "seresnet_default_3463": 3e-5}
"""what the stored float32 losses are from those in float64 (the third: 0.4e-5)"""
LABELS = torch.tensor([0, 1])


@pytest.fixture
def load(shared: Path, tmp_path: Path):
    def imported(name: str, arch: str) -> SpoofModel:
        file = shared / "golden" / f"{name}_weights.safetensors"
        if not file.exists():
            file = golden.save_state(
                golden.filled_state(shared, name, seed=61), tmp_path / f"{name}.safetensors"
            )
        model = import_weights(arch, file)
        assert isinstance(model, SpoofModel)
        return model

    return imported


def training_loss(logits: Tensor) -> Tensor:
    return functional.cross_entropy(logits, LABELS, weight=torch.tensor([0.1, 0.9]).to(logits))


@pytest.mark.parametrize(("name", "arch", "count"), CASES)
def test_outputs_equal_the_original(load, shared, name, arch, count) -> None:
    vectors = golden.read(shared, "seresnet_io")
    model = load(name, arch).eval()
    assert model.num_parameters == count
    features = vectors["input.feat"]
    maps: list[Tensor] = []
    hook = model.network.stages.register_forward_hook(lambda *call: maps.append(call[-1]))
    with torch.inference_mode():
        together = model.network(features)
        hook.remove()
        alone = torch.cat([model.network(item[None]).logits for item in features])
        shorter = model.network(features[..., :201]).logits
    trunk = maps[0]
    statistics = torch.stack([trunk.mean(), trunk.abs().mean(), trunk.norm()])
    assert golden.relative_error(statistics, vectors[f"{name}.eval.backbone.stat"]) < golden.OUTPUT
    assert golden.relative_error(together.embedding, vectors[f"{name}.eval.emb"]) < golden.OUTPUT
    for logits in (together.logits, alone):
        assert golden.relative_error(logits, vectors[f"{name}.eval.logits"]) < golden.OUTPUT
    reference = vectors[f"{name}.eval.logits_201frames"]
    assert golden.relative_error(shorter, reference) < golden.OUTPUT


def test_the_last_map_equals_the_original(load, shared) -> None:
    vectors = golden.read(shared, "seresnet_io")
    network = load("seresnet_small", "se_resnet_small").network.eval()
    maps: list[Tensor] = []
    network.stages.register_forward_hook(lambda *call: maps.append(call[-1]))
    with torch.inference_mode():
        network(vectors["input.feat"])
    reference = vectors["seresnet_small.eval.backbone"]
    assert golden.relative_error(maps[0], reference) < golden.OUTPUT


@pytest.mark.parametrize(("name", "arch", "count"), CASES)
def test_training_loss_and_gradients_equal_the_original(load, shared, name, arch, count) -> None:
    # The classifier's batch norms see two items: they pass on a gradient only through units whose
    # two values nearly agree, which float32 knows badly.  So float64 here: it does not depend on
    # the machine; and the gradients of the reference carry one common factor of up to 1.002.
    vectors = golden.read(shared, "seresnet_io")
    network = golden.without_dropout(load(name, arch).network).train().double()
    output = network(vectors["input.feat"].double())
    loss = training_loss(output.logits)
    expected = float(vectors[f"{name}.train.loss"])
    assert float(loss.detach()) == pytest.approx(expected, rel=ROUNDING.get(name, golden.LOSS))
    reference_logits = vectors[f"{name}.train.logits"]
    assert golden.relative_error(output.logits, reference_logits) < golden.OUTPUT
    loss.backward()
    reference = golden.reference_norms(vectors, f"{name}.train.gradnorm.")
    found = golden.gradient_norms(network)
    factor = math.hypot(*found.values()) / math.hypot(*reference.values())
    assert factor == pytest.approx(1.0, abs=3e-3)
    scaled = {name: value / factor for name, value in found.items()}
    noise = 3e-5 if name == "seresnet_default_3463" else 1e-5  # 33 ReLUs in a row
    golden.assert_gradients_match(scaled, reference, noise)


def test_two_swapped_tensors_break_the_parity(shared, tmp_path) -> None:
    vectors = golden.read(shared, "seresnet_io")
    state = golden.read(shared, "seresnet_small_weights")
    state = golden.swapped(state, "backbone.layer3.0.bn1.bias", "backbone.layer3.0.bn2.bias")
    file = golden.save_state(state, tmp_path / "swapped.safetensors")
    with torch.inference_mode():
        output = import_weights("se_resnet_small", file).eval().network(vectors["input.feat"])
    reference = vectors["seresnet_small.eval.logits"]
    assert golden.relative_error(output.logits, reference) > golden.OUTPUT


@pytest.mark.parametrize(("key", "options"), [("mel", MEL), ("lfcc", LFCC), ("mfcc", MFCC)])
def test_the_three_front_ends_equal_the_detectors(shared, key, options) -> None:
    vectors = golden.read(shared, "seresnet_frontend")
    reference = vectors[key]
    single = build_features(FEATURES.config(**options))(vectors["wave"][None])[0]
    assert single.shape == reference.shape
    assert golden.relative_error(single, reference) < 2e-5
    exact = build_features(FEATURES.config(**options, precision="double"))(vectors["wave"][None])[0]
    assert golden.relative_error(exact, reference) < 2e-6


def test_a_window_of_the_detector_has_404_frames(load) -> None:
    model = load("seresnet_small", "se_resnet_small")
    samples = round(model.window.seconds * model.sample_rate)
    assert (samples, model.frontend.num_frames(samples)) == (64_600, 404)


@pytest.mark.parametrize("options", [LFCC, MFCC])
def test_cepstra_are_an_input_too(options) -> None:
    from glottis.models import create_model

    model = create_model("se_resnet_small", features=options, seed=0).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, 8000) * 0.1).logits.shape == (2, 2)
