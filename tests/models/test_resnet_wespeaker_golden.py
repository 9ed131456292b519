"""ResNets against wespeaker's code and its published sizes."""

from __future__ import annotations

import pytest
import torch

from glottis.errors import ModelError
from glottis.models import create_model, import_weights, import_with_report
from glottis.models.parts.folding import conv_norm
from helpers import golden

NAME = "wespeaker_resnet34_tstp256"


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


def test_filters_and_embedding_size_follow_from_the_file(tmp_path, state) -> None:
    weight = state["seg_1.weight"].unflatten(1, (2, 256, 10))[:24, :, :, :8].flatten(1)  # 64 bins
    changed = {**state, "seg_1.weight": weight, "seg_1.bias": state["seg_1.bias"][:24]}
    file = golden.save_state(changed, tmp_path / "w.safetensors")
    model, report = import_with_report("resnet34_wespeaker", file)
    assert model.embedding_size == 24
    assert model.features_config.num_mels == 64
    assert report.loaded_share == 1.0


# millions: wespeaker, runtime/onnxruntime/README.md, table "RTF"; there is none for ResNet18
PUBLISHED = {34: 6.63, 50: 11.13, 101: 15.89, 152: 19.81, 221: 23.79, 293: 28.62}


@pytest.mark.parametrize(("size", "published"), PUBLISHED.items())
def test_sizes_are_the_published_ones(size: int, published: float) -> None:
    with torch.device("meta"):
        count = create_model(f"resnet{size}_wespeaker", seed=0).num_parameters
    assert int(count / 1e4) / 100 == published  # cut off there, not rounded


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
