"""RawNet3 against the public trainer's code, weights by the fill recipe.

The logarithm of a filter output near zero shows every bit of it: with other rounding in the front
end (another convolution kernel, float64) embeddings move by 2e-4, and by 1e-2 where batch norms see
three items.  On such a machine the tolerance is twice the distance of the float32 reference from a
float64 run of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from glottis.models import SpeakerModel, import_weights
from glottis.models.parts.learned_sinc import LearnedSinc
from helpers import golden, trainer_vectors

NAME = "RawNet3_ECA"


@pytest.fixture(scope="module")
def vectors(shared: Path) -> dict[str, Tensor]:
    return golden.read(shared, trainer_vectors.FILE)


@pytest.fixture(scope="module")
def file(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    start = LearnedSinc(128, sine=True)  # the vectors have these at their initial values
    return trainer_vectors.save_filled(
        shared,
        tmp_path_factory.mktemp("weights"),
        NAME,
        **{
            "conv1.filterbank.low_hz_": start.low_hz.detach()[:, None],
            "conv1.filterbank.band_hz_": start.band_hz.detach()[:, None],
        },
    )


@pytest.fixture
def load(file: Path) -> Callable[[], SpeakerModel]:
    def imported() -> SpeakerModel:
        model = import_weights("rawnet3", file)
        assert isinstance(model, SpeakerModel)
        return model

    return imported


def assert_close(
    found: Tensor, reference: Tensor, tolerance: float, precise: Callable[[], Tensor]
) -> None:
    """precise: the same in float64, computed only where the usual tolerance is not met."""
    error = golden.relative_error(found, reference)
    if error >= tolerance:
        assert error < 2 * golden.relative_error(precise(), reference)


def test_the_file_tells_the_options(load) -> None:
    model = load()
    assert model.num_parameters == 16_280_322
    assert model.embedding_size == 256
    assert model.config.channels == 1024


def test_embeddings_equal_the_original(load, vectors) -> None:
    model, wave = load().eval(), vectors["input.wave"]
    reference = vectors[f"{NAME}.eval.emb"]

    def precise() -> Tensor:
        return load().double().eval()(wave.double())

    with torch.inference_mode():
        assert_close(model(wave), reference, golden.OUTPUT, precise)
        alone = torch.cat([model(item[None]) for item in wave])
        assert_close(alone, reference, golden.OUTPUT, precise)


def test_inner_layers_equal_the_original(load, vectors) -> None:
    layers = {"layer1": "blocks.0", "layer4": "joint"}
    trainer_vectors.assert_layers_match(load(), vectors, NAME, layers)


def test_a_training_step_equals_the_original(load, vectors) -> None:
    model, wave = load().train(), vectors["input.wave"]
    embeddings = model(wave)
    loss = trainer_vectors.training_loss(embeddings)
    loss.backward()

    def precise() -> Tensor:
        with torch.no_grad():
            return load().double().train()(wave.double())

    reference = vectors[f"{NAME}.train.emb"]
    assert_close(embeddings, reference, golden.OUTPUT, precise)
    expected = vectors[f"{NAME}.train.loss"]
    assert_close(
        loss, expected, golden.LOSS, lambda: trainer_vectors.training_loss(precise()).reshape(1)
    )
    if golden.relative_error(embeddings, reference) < golden.OUTPUT:
        norms = golden.reference_norms(vectors, f"{NAME}.train.gradnorm.")
        golden.assert_gradients_match(golden.gradient_norms(model.network), norms)


def test_two_swapped_tensors_break_the_parity(file, vectors, tmp_path) -> None:
    state = safetensors.torch.load_file(file)
    state = golden.swapped(state, "layer2.convs.1.weight", "layer2.convs.2.weight")
    swapped = golden.save_state(state, tmp_path / "swapped.safetensors")
    with torch.inference_mode():
        embeddings = import_weights("rawnet3", swapped).eval()(vectors["input.wave"][:1])
    reference = vectors[f"{NAME}.eval.emb"][:1]
    assert golden.relative_error(embeddings, reference) > 0.01
