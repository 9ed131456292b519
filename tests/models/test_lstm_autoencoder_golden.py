"""The LSTM autoencoder against its published code: the full network and a small one with SAP."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from glottis.models import SpeakerModel, import_weights
from helpers import golden

NAMES = ["lstm_autoencoder", "lstm_autoencoder_sap_small"]

NORMED = 1e-3
"""of embeddings in training: their batch norm sees two clips, and blows up rounding of near ones"""


@pytest.fixture
def load(shared: Path, tmp_path: Path):
    def imported(name: str, **features: str) -> SpeakerModel:
        file = shared / "golden" / f"dim_{name}_weights.safetensors"
        if not file.exists():
            state = golden.filled_state(shared, f"dim_{name}", seed=11)
            file = golden.save_state(state, tmp_path / f"{name}.safetensors")
        model = import_weights("lstm_autoencoder", file, features=features, lstm_dropout=0.0)
        assert isinstance(model, SpeakerModel)
        return model

    return imported


def training_loss(embeddings: Tensor) -> Tensor:
    return embeddings.square().mean() + 0.01 * embeddings[:, :8].sum()


@pytest.mark.parametrize(
    ("name", "count", "size", "mels"),
    [
        ("lstm_autoencoder", 3_873_745, 512, 80),
        ("lstm_autoencoder_sap_small", 755_753, 192, 40),
    ],
)
def test_embeddings_equal_the_original(load, shared, name, count, size, mels) -> None:
    vectors = golden.read(shared, "dim_models_io")
    model = load(name).eval()
    assert model.num_parameters == count
    assert (model.embedding_size, model.frontend.num_features) == (size, mels)
    with torch.inference_mode():
        together = model(vectors["input.wave"])
        alone = torch.cat([model(wave[None]) for wave in vectors["input.wave"]])
    reference = vectors[f"{name}.eval.emb"]
    assert golden.relative_error(together, reference) < golden.OUTPUT
    assert golden.relative_error(alone, reference) < golden.OUTPUT


@pytest.mark.parametrize("name", NAMES)
def test_every_part_equals_the_original(load, shared, name) -> None:
    vectors = golden.read(shared, "dim_models_io")
    model = load(name).eval()
    network = model.network
    found: dict[str, Tensor] = {}
    modules = {
        "autoencoder": network.encoder,
        "lstm_encoder": network.lstm_norm,
        "pooling": network.pooling,
    }
    for key, module in modules.items():
        module.register_forward_hook(lambda *call, key=key: found.__setitem__(key, call[-1]))
    with torch.inference_mode():
        found["instancenorm"] = model.frontend(vectors["input.wave"])
        network(found["instancenorm"])
        reconstruction = network.decoder(found["autoencoder"])
    for key, value in found.items():
        statistics = torch.stack([value.mean(), value.abs().mean(), value.norm()])
        expected = vectors[f"{name}.eval.{key}.stat"]
        assert golden.relative_error(statistics, expected) < golden.OUTPUT, key
        if f"{name}.eval.{key}.slice" in vectors:
            values = value.flatten(1)
            expected = vectors[f"{name}.eval.{key}.slice"]
            part = values[:, :: max(1, values.shape[1] // 512)][:, : expected.shape[1]]
            assert golden.relative_error(part, expected) < golden.OUTPUT, key
    expected = vectors[f"{name}.eval.reconstruction.slice"]
    assert golden.relative_error(reconstruction[:, ::8, ::10], expected) < golden.OUTPUT


@pytest.mark.parametrize("name", NAMES)
def test_training_loss_and_gradients_equal_the_original(load, shared, name) -> None:
    # float64, because noise in the features flips ReLUs
    vectors = golden.read(shared, "dim_models_io")
    model = golden.without_dropout(load(name, precision="double"))
    network = model.network.double().train()
    embeddings = network(model.frontend(vectors["input.wave"]).double())
    loss = training_loss(embeddings)
    assert golden.relative_error(embeddings, vectors[f"{name}.train.emb"]) < NORMED
    expected = float(vectors[f"{name}.train.loss"])
    assert float(loss.detach()) == pytest.approx(expected, rel=golden.LOSS)
    loss.backward()
    reference = golden.reference_norms(vectors, f"{name}.train.gradnorm.")
    golden.assert_gradients_match(golden.gradient_norms(network), reference)


def test_two_swapped_tensors_break_the_parity(shared, tmp_path) -> None:
    name = "lstm_autoencoder_sap_small"
    vectors = golden.read(shared, "dim_models_io")
    state = golden.swapped(
        golden.read(shared, f"dim_{name}_weights"),
        "lstm_encoder.lstm.bias_hh_l0",
        "lstm_encoder.lstm.bias_hh_l0_reverse",
    )
    file = golden.save_state(state, tmp_path / "swapped.safetensors")
    with torch.inference_mode():
        embeddings = import_weights("lstm_autoencoder", file).eval()(vectors["input.wave"])
    assert golden.relative_error(embeddings, vectors[f"{name}.eval.emb"]) > golden.OUTPUT
