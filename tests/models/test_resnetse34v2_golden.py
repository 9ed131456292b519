"""ResNetSE34V2 against the public trainer's code, weights by the fill recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from glottis.errors import ModelError
from glottis.models import create_model, import_weights
from helpers import golden, trainer_vectors

ASP, SAP = "ResNetSE34V2_ASP", "ResNetSE34V2_SAP"
every_case = pytest.mark.parametrize("name", [ASP, SAP])


@pytest.fixture(scope="module")
def vectors(shared: Path) -> dict[str, Tensor]:
    return golden.read(shared, trainer_vectors.FILE)


@pytest.fixture(scope="module")
def files(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {name: trainer_vectors.save_filled(shared, folder, name) for name in (ASP, SAP)}


@pytest.mark.parametrize(
    ("name", "count", "pooling", "mels"), [(ASP, 8_028_492, "asp", 64), (SAP, 6_389_324, "sap", 40)]
)
def test_the_file_tells_the_options(files, name, count, pooling, mels) -> None:
    model = import_weights("resnetse34v2", files[name])
    assert model.num_parameters == count
    assert model.embedding_size == 512
    assert model.config.pooling == pooling
    assert model.frontend.num_features == mels


@every_case
def test_embeddings_equal_the_original(files, vectors, name) -> None:
    model = import_weights("resnetse34v2", files[name])
    trainer_vectors.assert_outputs_match(model, vectors, name)


def test_inner_layers_equal_the_original(files, vectors) -> None:
    model = import_weights("resnetse34v2", files[SAP])
    layers = {"layer1": "stages.0", "layer4": "stages.3"}
    trainer_vectors.assert_layers_match(model, vectors, SAP, layers)


def test_features_equal_the_original(files, vectors) -> None:
    model = import_weights("resnetse34v2", files[ASP])
    features = model.frontend(vectors["input.wave"][:1])
    assert golden.relative_error(features, vectors[f"{ASP}.eval.instancenorm"]) < golden.OUTPUT


@every_case
def test_training_loss_equals_the_original(files, vectors, name) -> None:
    model = import_weights("resnetse34v2", files[name])
    trainer_vectors.assert_training_matches(model, vectors, name)


@pytest.mark.parametrize("name", [SAP, pytest.param(ASP, marks=pytest.mark.slow)])
def test_gradients_equal_the_original(files, vectors, name) -> None:
    # float64 on both sides of the front end; the reference's own features are off by 1e-5, which
    # flips ReLUs (with features rounded alike the noise is 1.5e-5 of the whole gradient, not 7e-5)
    model = import_weights("resnetse34v2", files[name])
    num_mels = model.frontend.num_features
    features = trainer_vectors.reference_features(
        vectors["input.wave"], num_mels, pre_emphasis=True
    )
    network = model.network.double()
    trainer_vectors.assert_gradients_match(network, features, vectors, name, noise=1e-4)


def test_two_swapped_tensors_break_the_parity(files, vectors, tmp_path) -> None:
    state = golden.swapped(
        safetensors.torch.load_file(files[SAP]), "layer3.1.conv1.weight", "layer3.2.conv1.weight"
    )
    file = golden.save_state(state, tmp_path / "swapped.safetensors")
    with torch.inference_mode():
        embeddings = import_weights("resnetse34v2", file).eval()(vectors["input.wave"][:1])
    reference = vectors[f"{SAP}.eval.emb"][:1]
    assert golden.relative_error(embeddings, reference) > golden.OUTPUT


def test_the_number_of_mel_bins_is_a_multiple_of_eight() -> None:
    with pytest.raises(ModelError, match="not a multiple of 8"):
        create_model("resnetse34v2", features={"num_mels": 60})
