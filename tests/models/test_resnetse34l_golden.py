"""ResNetSE34L against the public trainer's code: SAP with full weights, ASP by the fill recipe."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glottis.models import SpeakerModel, import_weights
from helpers import golden

CASES = ["ResNetSE34L_SAP", "ResNetSE34L_ASP"]


@pytest.fixture
def load(shared: Path, tmp_path: Path):
    def imported(name: str) -> SpeakerModel:
        file = shared / "golden" / f"vox_{name}_weights.safetensors"
        if not file.exists():
            state = golden.filled_state(shared, f"vox_{name}", seed=2024)
            file = golden.save_state(state, tmp_path / f"{name}.safetensors")
        model = import_weights("resnetse34l", file)
        assert isinstance(model, SpeakerModel)
        return model

    return imported


def reference_features(wave: Tensor, num_mels: int) -> Tensor:
    """The original front end once more: its float32 tables, but float64 arithmetic."""
    hz = torch.linspace(0, 8000, 257)
    mel = torch.linspace(0, 2595 * math.log10(1 + 8000 / 700), num_mels + 2)
    corners = 700 * (10.0 ** (mel / 2595) - 1)
    widths = corners[1:] - corners[:-1]
    slopes = corners[:, None] - hz
    filters = torch.minimum(-slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None])
    window = torch.hamming_window(400).double()
    spectrum = torch.stft(wave.double(), 512, 160, 400, window=window, return_complex=True)
    energy = filters.clamp_min(0).double() @ spectrum.abs().square()  # (B, F, T)
    return torch.nn.functional.instance_norm((energy + 1e-6).log())


def training_loss(embeddings: Tensor) -> Tensor:
    return embeddings.square().mean() + 0.01 * embeddings[:, :8].sum()


@pytest.mark.parametrize(
    ("name", "count", "size", "mels"),
    [("ResNetSE34L_SAP", 1_437_078, 512, 40), ("ResNetSE34L_ASP", 1_436_822, 256, 64)],
)
def test_embeddings_equal_the_original(load, shared, name, count, size, mels) -> None:
    vectors = golden.read(shared, "vox_models_io")
    model = load(name).eval()
    assert model.num_parameters == count
    assert model.embedding_size == size
    assert model.frontend.num_features == mels
    with torch.inference_mode():
        together = model(vectors["input.wave"])
        alone = torch.cat([model(wave[None]) for wave in vectors["input.wave"]])
    reference = vectors[f"{name}.eval.emb"]
    assert golden.relative_error(together, reference) < golden.OUTPUT
    assert golden.relative_error(alone, reference) < golden.OUTPUT


@pytest.mark.parametrize("name", CASES)
def test_training_loss_equals_the_original(load, shared, name) -> None:
    vectors = golden.read(shared, "vox_models_io")
    embeddings = load(name).train()(vectors["input.wave"])
    assert golden.relative_error(embeddings, vectors[f"{name}.train.emb"]) < golden.OUTPUT
    expected = float(vectors[f"{name}.train.loss"])
    assert float(training_loss(embeddings).detach()) == pytest.approx(expected, rel=golden.LOSS)


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_the_original(load, shared, name) -> None:
    # float64: 1e-5 of noise in the features flips ReLUs and moves some of these norms by 3 %
    vectors = golden.read(shared, "vox_models_io")
    model = load(name)
    network = model.network.double().train()
    features = reference_features(vectors["input.wave"], model.frontend.num_features)
    training_loss(network(features)).backward()
    reference = golden.reference_norms(vectors, f"{name}.train.gradnorm.")
    golden.assert_gradients_match(golden.gradient_norms(network), reference)


def test_two_swapped_tensors_break_the_parity(load, shared, tmp_path) -> None:
    vectors = golden.read(shared, "vox_models_io")
    state = golden.read(shared, "vox_ResNetSE34L_SAP_weights")
    state = golden.swapped(state, "layer3.1.conv1.weight", "layer3.2.conv1.weight")
    file = golden.save_state(state, tmp_path / "swapped.safetensors")
    with torch.inference_mode():
        embeddings = import_weights("resnetse34l", file).eval()(vectors["input.wave"])
    assert golden.relative_error(embeddings, vectors["ResNetSE34L_SAP.eval.emb"]) > golden.OUTPUT


def test_a_checkpoint_of_the_public_trainer_loads(load, shared, tmp_path) -> None:
    # its files hold the wrapped network and the loss: names start with __S__. and __L__.
    state = golden.read(shared, "vox_ResNetSE34L_SAP_weights")
    wrapped = {f"__S__.{name}": value for name, value in state.items()}
    wrapped["__L__.weight"] = torch.randn(10, 512)
    torch.save(wrapped, tmp_path / "baseline.model")
    model = import_weights("resnetse34l", tmp_path / "baseline.model")
    plain = load("ResNetSE34L_SAP")
    for (name, ours), value in zip(
        model.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, value), name
