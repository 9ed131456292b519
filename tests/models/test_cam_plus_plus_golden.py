"""CAM++ against wespeaker's and 3D-Speaker's code, through the public importer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glottis.errors import ModelError
from glottis.models import import_weights, import_with_report
from glottis.models.cam_plus_plus import ContextMask
from helpers import golden

CASES = [
    ("wespeaker", "wespeaker_campplus_tstp512", 7_176_224),
    ("3dspeaker", "3dspeaker_campplus_192", 6_848_544),
    ("3dspeaker", "3dspeaker_campplus_512", 7_176_224),
]


def stored(shared: Path, tmp_path: Path, name: str) -> Path:
    state = golden.filled_state(shared, f"importer_{name}", seed=5)
    return golden.save_state(state, tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize(("source", "name", "count"), CASES)
def test_embeddings_equal_the_original(shared, tmp_path, source, name, count) -> None:
    model = import_weights("cam_plus_plus", stored(shared, tmp_path, name), format=source)
    golden.assert_importer_matches(model, shared, name, count)
    expected = {"wespeaker": ("hamming", 32768.0), "3dspeaker": ("povey", 1.0)}[source]
    assert (model.features_config.window, model.features_config.full_scale) == expected


def test_two_swapped_tensors_break_the_parity(shared, tmp_path) -> None:
    name = "3dspeaker_campplus_192"
    state = golden.filled_state(shared, f"importer_{name}", seed=5)
    layers = [f"xvector.block2.tdnnd{i}.cam_layer.linear_local.weight" for i in (4, 5)]
    file = golden.save_state(golden.swapped(state, *layers), tmp_path / "swapped.safetensors")
    model = import_weights("cam_plus_plus", file, format="3dspeaker")
    assert golden.importer_error(model, shared, name) > golden.OUTPUT


def test_the_format_must_be_said_unless_the_classifier_tells(shared, tmp_path) -> None:
    file = stored(shared, tmp_path, "wespeaker_campplus_tstp512")
    with pytest.raises(ModelError, match="same names in the formats wespeaker and 3dspeaker"):
        import_weights("cam_plus_plus", file)
    state = golden.filled_state(shared, "importer_wespeaker_campplus_tstp512", seed=5)
    state["projection.weight"] = torch.zeros(17_982, 512)
    whole = golden.save_state(state, tmp_path / "avg_model.safetensors")
    _, report = import_with_report("cam_plus_plus", whole)
    assert report.format == "wespeaker"
    assert report.unexpected == ("projection.weight",)


@pytest.mark.parametrize("frames", [1, 9, 10, 11, 20, 37])
def test_the_mask_follows_the_clip_and_the_segment_of_each_frame(frames: int) -> None:
    torch.manual_seed(0)
    module, x = ContextMask(8, 4, dilation=2, segment_frames=10), torch.randn(2, 8, frames)
    expected = module.local(x).clone()
    for frame in range(frames):
        start = frame // 10 * 10
        context = x.mean(-1, keepdim=True) + x[..., start : start + 10].mean(-1, keepdim=True)
        hidden = torch.relu(module.reduce(context))
        expected[..., frame] *= torch.sigmoid(module.expand(hidden))[..., 0]
    torch.testing.assert_close(module(x), expected)
