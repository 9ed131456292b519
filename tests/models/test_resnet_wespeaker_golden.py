"""ResNets against wespeaker's code and its published sizes."""

from __future__ import annotations

import pytest
import torch

from glottis.errors import ModelError
from glottis.models import create_model, import_weights, import_with_report
from glottis.models.parts.folding import conv_norm
from helpers import golden

NAME = "wespeaker_resnet34_tstp256"
SECOND_EMBEDDING_LAYER = 256 * 256 + 256


@pytest.fixture(scope="module")
def state(shared) -> dict[str, torch.Tensor]:
    return golden.filled_state(shared, f"importer_{NAME}", seed=5)


def test_embeddings_equal_the_original(shared, tmp_path, state) -> None:
    file = golden.save_state(state, tmp_path / "resnet34.safetensors")
    model = import_weights("resnet34_wespeaker", file)
    golden.assert_importer_matches(model, shared, NAME, 6_634_336)


def test_two_swapped_tensors_break_the_parity(shared, tmp_path, state) -> None:
    changed = golden.swapped(state, "layer3.1.conv1.weight", "layer3.2.conv1.weight")
    file = golden.save_state(changed, tmp_path / "swapped.safetensors")
    model = import_weights("resnet34_wespeaker", file)
    assert golden.importer_error(model, shared, NAME) > golden.OUTPUT


def test_the_older_form_with_two_embedding_layers_is_refused(tmp_path, state) -> None:
    older = {**state, "seg_2.weight": torch.zeros(256, 256), "seg_2.bias": torch.zeros(256)}
    file = golden.save_state(older, tmp_path / "older.safetensors")
    with pytest.raises(ModelError, match=r"left over: seg_2\.weight"):
        import_weights("resnet34_wespeaker", file)


def test_filters_and_embedding_size_follow_from_the_file(tmp_path) -> None:
    options = {"num_blocks": [1, 1, 1, 1], "channels": 4}
    network = create_model(
        "resnet50_wespeaker", embedding_size=24, features={"num_mels": 64}, seed=0, **options
    ).network
    names = {network.original_name(name): value for name, value in network.state_dict().items()}
    names["projection.weight"] = torch.zeros(3, 24)
    file = golden.save_state(names, tmp_path / "w.safetensors")
    model, report = import_with_report("resnet50_wespeaker", file, **options)
    assert model.embedding_size == 24
    assert model.features_config.num_mels == 64
    assert report.loaded_share == 1.0


ONE_LAYER = [(34, 1, 6.63), (221, 1, 23.79), (293, 1, 28.62)]  # examples/voxceleb/v2
TWO_LAYERS = [(152, 2, 19.88), (221, 2, 23.86), (293, 2, 28.69)]  # runtime/onnxruntime


@pytest.mark.parametrize(("size", "layers", "published"), [*ONE_LAYER, *TWO_LAYERS])
def test_sizes_are_the_published_ones(size: int, layers: int, published: float) -> None:
    count = create_model(f"resnet{size}_wespeaker", seed=0).num_parameters
    count += (layers - 1) * SECOND_EMBEDDING_LAYER
    assert count / 1e6 == pytest.approx(published, abs=0.01)  # one table rounds, the other cuts


@pytest.mark.parametrize("bias", [False, True])
def test_a_folded_batch_norm_gives_the_same(bias: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    conv = torch.nn.Conv2d(3, 5, 3, stride=(2, 1), padding=1, bias=bias).double()
    norm = torch.nn.BatchNorm2d(5).double()
    x = torch.randn(2, 3, 9, 7, generator=rng, dtype=torch.float64)
    for _ in range(3):
        torch.testing.assert_close(conv_norm(x, conv, norm), norm(conv(x)))  # training
    norm.eval().weight.data.uniform_(0.5, 2.0, generator=rng)
    torch.testing.assert_close(conv_norm(x, conv, norm), norm(conv(x)))
