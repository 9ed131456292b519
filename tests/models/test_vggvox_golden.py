"""VGGVox against the public trainer's code, weights by the fill recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from glottis.errors import ModelError
from glottis.models import SpeakerModel, create_model, import_weights
from helpers import golden, trainer_vectors

# the maximum was trained on energies without a logarithm; the file does not tell
OPTIONS = {
    "VGGVox_SAP": {},
    "VGGVox_TAP": {},
    "VGGVox_MAX": {"pooling": "max", "features": {"log": "none"}},
}
every_case = pytest.mark.parametrize("name", OPTIONS)


@pytest.fixture(scope="module")
def vectors(shared: Path) -> dict[str, Tensor]:
    return golden.read(shared, trainer_vectors.FILE)


@pytest.fixture(scope="module")
def files(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {name: trainer_vectors.save_filled(shared, folder, name) for name in OPTIONS}


def load(files: dict[str, Path], name: str) -> SpeakerModel:
    model = import_weights("vggvox", files[name], **OPTIONS[name])
    assert isinstance(model, SpeakerModel)
    return model


@pytest.mark.parametrize(
    ("name", "count", "size"),
    [
        ("VGGVox_SAP", 4_295_104, 1024),
        ("VGGVox_TAP", 3_769_280, 512),
        ("VGGVox_MAX", 3_769_280, 512),
    ],
)
def test_embeddings_equal_the_original(files, vectors, name, count, size) -> None:
    model = load(files, name)
    assert model.num_parameters == count
    assert model.embedding_size == size
    trainer_vectors.assert_outputs_match(model, vectors, name)


@every_case
def test_inner_layers_equal_the_original(files, vectors, name) -> None:
    layers = {"netcnn": "layers"}
    trainer_vectors.assert_layers_match(load(files, name), vectors, name, layers)


def test_features_equal_the_original(files, vectors) -> None:
    features = load(files, "VGGVox_SAP").frontend(vectors["input.wave"][:1])
    reference = vectors["VGGVox_SAP.eval.instancenorm"]
    assert golden.relative_error(features, reference) < golden.OUTPUT


@every_case
def test_training_loss_equals_the_original(files, vectors, name) -> None:
    trainer_vectors.assert_training_matches(load(files, name), vectors, name)


@every_case
def test_gradients_equal_the_original(files, vectors, name) -> None:
    features = trainer_vectors.reference_features(
        vectors["input.wave"], 40, hann=True, logarithm=name != "VGGVox_MAX"
    )
    network = load(files, name).network.double()
    trainer_vectors.assert_gradients_match(network, features, vectors, name)


def test_two_swapped_tensors_break_the_parity(files, vectors, tmp_path) -> None:
    state = safetensors.torch.load_file(files["VGGVox_TAP"])
    state = golden.swapped(state, "netcnn.12.bias", "netcnn.15.bias")
    file = golden.save_state(state, tmp_path / "swapped.safetensors")
    with torch.inference_mode():
        embeddings = import_weights("vggvox", file).eval()(vectors["input.wave"])
    assert golden.relative_error(embeddings, vectors["VGGVox_TAP.eval.emb"]) > golden.OUTPUT


@pytest.mark.parametrize("pooling", ["sap", "tap", "max"])
@pytest.mark.parametrize("num_mels", [39, 64])
def test_other_numbers_of_mel_bins_work(pooling, num_mels) -> None:
    model = create_model("vggvox", pooling=pooling, features={"num_mels": num_mels}).eval()
    assert model(torch.randn(1, model.min_samples)).shape == (1, 1024)


def test_too_few_mel_bins_are_refused() -> None:
    with pytest.raises(ModelError, match="at least 39"):
        create_model("vggvox", features={"num_mels": 38})
