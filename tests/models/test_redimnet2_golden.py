"""ReDimNet2 against the original code, by the fill recipe, in all forms that have vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glottis.errors import ModelError
from glottis.models import SpeakerModel, create_model, import_weights
from helpers import golden

FORMS = ["b0_1d", "b0_2d", "b0_2d_dual_gnorm", "b2_1d", "b2_2d", "b2_nohead"]


def table_of(shared: Path, form: str) -> dict[str, Any]:
    text = (shared / "golden" / "redimnet2_configs.json").read_text()
    table: dict[str, Any] = json.loads(text)[form]
    return table


def options_of(shared: Path, form: str) -> dict[str, Any]:
    """A published form as options of ours."""
    arguments = table_of(shared, form)["kwargs"]
    return {
        "channels": arguments["C"],
        "head_channels": arguments["out_channels"],
        "head_on_map": arguments.get("return_2d_output", False),
        "dual_aggregation": arguments.get("dual_agg", False),
        "stages": [
            {
                "bins": bins,
                "frames": frames,
                "num_blocks": blocks,
                "expansion": float(expansion),
                "reduction": reduction,
            }
            for (bins, frames), blocks, expansion, _, reduction in arguments["stages_setup"]
        ],
    }


@pytest.fixture
def load(shared: Path, tmp_path: Path):
    def imported(form: str, **more: Any) -> SpeakerModel:
        state = golden.filled_state(shared, f"redimnet2_{form}", seed=123)
        file = golden.save_state(state, tmp_path / f"{form}.safetensors")
        model = import_weights("redimnet2_b0", file, **options_of(shared, form), **more)
        assert isinstance(model, SpeakerModel)
        return model

    return imported


@pytest.mark.parametrize("form", FORMS)
def test_embeddings_equal_the_original(load, shared, form) -> None:
    vectors = golden.read(shared, "redimnet2_io")
    model = load(form).eval()
    assert model.num_parameters == table_of(shared, form)["params"]
    with torch.inference_mode():
        together = model(vectors["input.wave"])
        alone = torch.cat([model(wave[None]) for wave in vectors["input.wave"]])
    reference = vectors[f"{form}.eval.emb"]
    assert golden.relative_error(together, reference) < golden.OUTPUT
    assert golden.relative_error(alone, reference) < golden.OUTPUT


@pytest.mark.parametrize("form", ["b0_1d", "b0_2d"])
def test_every_stage_equals_the_original(load, shared, form) -> None:
    vectors = golden.read(shared, "redimnet2_io")
    model = load(form).eval()
    with torch.inference_mode():
        features = model.frontend(vectors["input.wave"])
        outputs = model.network.outputs(features)
    assert len(outputs) == 7
    for index, output in enumerate(outputs):
        full = output.repeat_interleave(300 // output.shape[1], dim=1)  # as the original keeps it
        part = full.transpose(1, 2)[:, ::18, ::25]
        reference = vectors[f"{form}.eval.stage_out{index}.slice"]
        assert golden.relative_error(part, reference) < golden.OUTPUT, index
    assert [300 // output.shape[1] for output in outputs] == [1, 1, 1, 2, 2, 4, 4]


TRAINED = ["b0_2d", *(pytest.param(f, marks=pytest.mark.slow) for f in ("b0_1d", "b2_1d", "b2_2d"))]


@pytest.mark.parametrize("form", TRAINED)
def test_training_equals_the_original(load, shared, form) -> None:
    # the original's own spectra and float64: a ReLU that flips moves a whole piece of gradient
    vectors = golden.read(shared, "redimnet2_io")
    spectra = golden.read(shared, "redimnet_io")  # of the same waveform, 72 bins, hop 160
    assert torch.equal(spectra["input.wave"], vectors["input.wave"])
    network = load(form).network.double().train()
    embeddings = network(spectra["b1.eval.spec"].double())
    loss = embeddings.square().mean() + 0.01 * embeddings[:, :8].sum()
    loss.backward()
    assert golden.relative_error(embeddings, vectors[f"{form}.train.emb"]) < golden.OUTPUT
    expected = float(vectors[f"{form}.train.loss"])
    assert float(loss.detach()) == pytest.approx(expected, rel=golden.LOSS)
    reference = golden.reference_norms(vectors, f"{form}.train.gradnorm.")
    # the reference is float32: where there are ReLUs, 1e-6 of noise in the input moves as much
    golden.assert_gradients_match(golden.gradient_norms(network), reference, noise=6e-4)


def test_two_swapped_tensors_break_the_parity(shared, tmp_path) -> None:
    vectors = golden.read(shared, "redimnet2_io")
    state = golden.filled_state(shared, "redimnet2_b0_2d", seed=123)
    name = "backbone.stage3.{}.conv_block.conv1.weight"
    state = golden.swapped(state, name.format(4), name.format(5))
    file = golden.save_state(state, tmp_path / "swapped.safetensors")
    with torch.inference_mode():
        embeddings = import_weights("redimnet2_b0", file).eval()(vectors["input.wave"])
    assert golden.relative_error(embeddings, vectors["b0_2d.eval.emb"]) > golden.OUTPUT


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("redimnet2_b0", "b0_2d"),
        ("redimnet2_b4", "b4_1d"),
        ("redimnet2_b5", "b5_2d"),
        ("redimnet2_b6", "b6_2d"),
    ],
)
def test_registered_sizes_have_their_published_count(shared, name, form) -> None:
    table = table_of(shared, form)
    model = create_model(name, seed=0)
    assert model.num_parameters == table["params"]
    millions = int(model.num_parameters / 1e5) / 10  # published with one decimal, cut off
    assert millions == table["published_params_millions"]
    assert table["matches_published_count"]


def test_the_table_of_a_stored_config_is_followed_and_its_front_end_refused(
    shared, tmp_path
) -> None:
    state = golden.filled_state(shared, "redimnet2_b0_2d", seed=123)
    arguments = {**table_of(shared, "b0_2d")["kwargs"], "feat_type": "pt"}
    file = tmp_path / "b0.pt"
    torch.save({"model_config": arguments, "state_dict": state}, file)
    ours = import_weights("redimnet2_b0", file)
    assert ours.config.head_on_map
    for changes, reason in [
        ({"feat_type": "tf"}, r"asks for feat_type='tf'"),
        ({"agg_gnorm": True}, r"agg_gnorm=True with dual_agg=False"),
        ({"C": 16}, r"is not redimnet2_b0: channels"),
    ]:
        torch.save({"model_config": {**arguments, **changes}, "state_dict": state}, file)
        with pytest.raises(ModelError, match=reason):
            import_weights("redimnet2_b0", file)
    del arguments["feat_type"]
    torch.save({"model_config": arguments, "state_dict": state}, file)
    with pytest.raises(ModelError, match="does not say feat_type"):
        import_weights("redimnet2_b0", file)


def test_frames_behind_the_last_whole_group_are_not_heard() -> None:
    network = create_model("redimnet2_b0", seed=0).network.eval()
    features: Tensor = torch.randn(1, 72, 43, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(features), network(features[:, :, :40]))
