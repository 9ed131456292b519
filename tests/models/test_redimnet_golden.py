"""ReDimNet against the original code: full weights for b0 and b2, the fill recipe for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from torch import Tensor
from torch.nn import functional

from glottis.errors import ModelError
from glottis.models import SpeakerModel, import_weights, import_with_report
from helpers import golden

# golden name, our name, parameters
QUICK = [
    ("b0", "redimnet_b0", 1_004_251),
    ("b1", "redimnet_b1", 2_126_937),
    ("b2_official", "redimnet_b2", 5_067_057),
    ("wrap_default", "redimnet", 4_234_193),
]
LONG = [
    ("b3", "redimnet_b3", 3_225_021),
    ("b4", "redimnet_b4", 6_441_521),
    ("b5", "redimnet_b5", 7_659_761),
    ("b6", "redimnet_b6", 15_015_473),
]
ALL = [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in LONG)]
WITH_GRADIENTS = [
    ("b2_official", "redimnet_b2"),
    pytest.param("b0", "redimnet_b0", marks=pytest.mark.slow),
    pytest.param("b1", "redimnet_b1", marks=pytest.mark.slow),
]
# the reference is float32: where there are ReLUs, an input changed by 1e-6 moves the norms by up to
# 5e-4 of the whole gradient, and most of them by more than GRADIENT
RELU_NOISE = 3e-4


@pytest.fixture
def load(shared: Path, tmp_path: Path):
    def imported(name: str, arch: str, seed: int = 123, **options: Any) -> SpeakerModel:
        file = shared / "golden" / f"{name}_weights.safetensors"
        if not file.exists():
            state = golden.filled_state(shared, name, seed)
            file = golden.save_state(state, tmp_path / f"{name}.safetensors")
        model = import_weights(arch, file, **options)
        assert isinstance(model, SpeakerModel)
        return model

    return imported


def training_loss(embeddings: Tensor) -> Tensor:
    return embeddings.square().mean() + 0.01 * embeddings[:, :8].sum()


@pytest.mark.parametrize(("name", "arch", "count"), ALL)
def test_embeddings_equal_the_original(load, shared, name, arch, count) -> None:
    vectors = golden.read(shared, "redimnet_io")
    model = load(f"redimnet_{name}", arch).eval()
    assert model.num_parameters == count
    with torch.inference_mode():
        together = model(vectors["input.wave"])
        alone = torch.cat([model(wave[None]) for wave in vectors["input.wave"]])
    reference = vectors[f"{name}.eval.emb"]
    assert golden.relative_error(together, reference) < golden.OUTPUT
    assert golden.relative_error(alone, reference) < golden.OUTPUT


@pytest.mark.parametrize(("name", "arch"), [("b0", "redimnet_b0"), ("b2_official", "redimnet_b2")])
def test_every_stage_equals_the_original(load, shared, name, arch) -> None:
    vectors = golden.read(shared, "redimnet_io")
    model = load(f"redimnet_{name}", arch).eval()
    network = model.network
    with torch.inference_mode():
        features = model.frontend(vectors["input.wave"])
        outputs = network.outputs(features)
        last = network.aggregation(*outputs).transpose(1, 2)  # (B, F C, T)
        pooled = network.pooling(last)
    assert (features - vectors[f"{name}.eval.spec"]).abs().max() < 3e-4  # ln of float32 spectra
    assert len(outputs) == len(network.stages) + 1
    for index, output in enumerate(outputs):
        part = output.transpose(1, 2)[:, ::18, ::25]
        reference = vectors[f"{name}.eval.stage_out{index}.slice"]
        assert golden.relative_error(part, reference) < golden.OUTPUT, index
    assert list(last.shape) == vectors[f"{name}.eval.backbone.shape"].long().tolist()
    step = max(1, last.shape[1] // 64)
    reference = vectors[f"{name}.eval.backbone.slice"]
    assert golden.relative_error(last[:, ::step, ::16], reference) < golden.OUTPUT
    assert golden.relative_error(pooled, vectors[f"{name}.eval.pool"]) < golden.OUTPUT


@pytest.mark.parametrize(("name", "arch"), WITH_GRADIENTS)
def test_training_equals_the_original(load, shared, name, arch) -> None:
    # the original's own spectra and float64: a ReLU that flips moves a whole piece of gradient
    vectors = golden.read(shared, "redimnet_io")
    network = load(f"redimnet_{name}", arch).network.double().train()
    embeddings = network(vectors[f"{name}.eval.spec"].double())
    loss = training_loss(embeddings)
    loss.backward()
    assert golden.relative_error(embeddings, vectors[f"{name}.train.emb"]) < golden.OUTPUT
    expected = float(vectors[f"{name}.train.loss"])
    assert float(loss.detach()) == pytest.approx(expected, rel=golden.LOSS)
    reference = golden.reference_norms(vectors, f"{name}.train.gradnorm.")
    noise = RELU_NOISE if name == "b0" else 1e-5
    golden.assert_gradients_match(golden.gradient_norms(network), reference, noise)


def test_the_b2_of_wespeaker_is_another_network(load, shared) -> None:
    # its fourth stage merges two bins, not three: the released weights do not fit it
    vectors = golden.read(shared, "redimnet_io")
    rows = [(1, 2, 12), (2, 2, 12), (1, 3, 12), (2, 4, 8), (1, 4, 8), (2, 4, 4)]
    stages = [{"stride": s, "num_blocks": n, "expansion": 1, "reduction": r} for s, n, r in rows]
    model = load(
        "redimnet_b2_wespeaker", "redimnet_b2", stages=stages, features={"hop_samples": 160}
    ).eval()
    assert model.num_parameters == 4_892_849
    with torch.inference_mode():
        embeddings = model(vectors["input.wave"])
    assert golden.relative_error(embeddings, vectors["b2_wespeaker.eval.emb"]) < golden.OUTPUT
    file = shared / "golden" / "redimnet_b2_official_weights.safetensors"
    with pytest.raises(ModelError, match="other shape"):
        import_weights("redimnet_b2", file, stages=stages)


def test_two_swapped_tensors_break_the_parity(load, shared, tmp_path) -> None:
    vectors = golden.read(shared, "redimnet_io")
    state = golden.read(shared, "redimnet_b0_weights")
    block = "backbone.stage3.{}.conv_block.conv1.weight"
    state = golden.swapped(state, block.format(4), block.format(5))
    file = golden.save_state(state, tmp_path / "swapped.safetensors")
    with torch.inference_mode():
        embeddings = import_weights("redimnet_b0", file).eval()(vectors["input.wave"])
    assert golden.relative_error(embeddings, vectors["b0.eval.emb"]) > golden.OUTPUT


# ------------------------------------------------------------ Matryoshka


def aam(embeddings: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    """Textbook AAM-softmax, margin 0.2, scale 30, for angles below pi - margin."""
    cosines = functional.linear(functional.normalize(embeddings), functional.normalize(centres))
    own = torch.cos(torch.arccos(cosines) + 0.2)
    mask = functional.one_hot(labels, len(centres)).bool()
    return functional.cross_entropy(30 * torch.where(mask, own, cosines), labels)


def test_matryoshka_prefixes_equal_the_original(load, shared) -> None:
    vectors = golden.read(shared, "mrl_redimnet_b2_io")
    model = load("mrl_redimnet_b2", "redimnet_b2_mrl", seed=77).eval()
    assert model.num_parameters == 5_016_305
    assert model.embedding_size == 256
    with torch.inference_mode():
        embeddings = model(vectors["input.wave"])
    for size in (64, 128, 192, 256):
        reference = vectors[f"eval.emb{size}"]
        assert golden.relative_error(embeddings[:, :size], reference) < golden.OUTPUT


@pytest.mark.slow
def test_matryoshka_training_equals_the_original(load, shared) -> None:
    vectors = golden.read(shared, "mrl_redimnet_b2_io")
    network = load("mrl_redimnet_b2", "redimnet_b2_mrl", 77).network.double().train()
    spectra = golden.read(shared, "redimnet_io")  # of the same waveform, 72 bins, hop 160
    assert torch.equal(spectra["input.wave"], vectors["input.wave"])
    embeddings = network(spectra["b1.eval.spec"].double())
    assert golden.relative_error(embeddings, vectors["train.emb256"]) < golden.OUTPUT
    centres, labels = vectors["aam.weight"].double(), vectors["train.labels"]
    losses = [aam(embeddings[:, :n], centres[:, :n], labels) for n in (64, 128, 192, 256)]
    loss = torch.stack(losses).mean()
    loss.backward()
    expected = float(vectors["train.total"])
    assert float(loss.detach()) == pytest.approx(expected, rel=golden.LOSS)
    reference = golden.reference_norms(vectors, "train.gradnorm.")
    found = golden.gradient_norms(network)
    golden.assert_gradients_match(found, {name: reference[name] for name in found})


# ------------------------------------------------------------ files with a model_config


def stored_config(shared: Path, name: str) -> dict[str, Any]:
    file = shared / "golden" / f"redimnet_{name}_weights.safetensors"
    with safetensors.safe_open(file, "pt") as content:
        config: dict[str, Any] = json.loads(content.metadata()["cfg"])
    return config


@pytest.fixture
def released(shared: Path, tmp_path: Path):
    """A file as the authors release them: arguments of their class, and the tensors."""

    def write(name: str, **changes: Any) -> Path:
        state = golden.read(shared, f"redimnet_{name}_weights")
        config = {**stored_config(shared, name), **changes}
        path = tmp_path / f"{name}.pt"
        torch.save({"model_config": config, "state_dict": state}, path)
        return path

    return write


@pytest.mark.parametrize("arch", ["redimnet_b2", "redimnet"])
def test_a_released_file_says_what_it_is(released, shared, arch) -> None:
    vectors = golden.read(shared, "redimnet_io")
    model, report = import_with_report(arch, released("b2_official"))
    assert report.loaded_share == 1.0
    assert report.missing == report.mismatched == ()
    assert all(name.startswith("spec.") for name in report.unexpected)
    assert model.features_config.hop_samples == 240  # stored, and in no tensor
    with torch.inference_mode():
        embeddings = model.eval()(vectors["input.wave"])
    assert golden.relative_error(embeddings, vectors["b2_official.eval.emb"]) < golden.OUTPUT


def test_the_stored_hop_overrules_our_default(released) -> None:
    model = import_weights("redimnet_b2", released("b2_official", hop_length=160))
    assert model.features_config.hop_samples == 160


def test_a_file_is_imported_under_its_own_name_only(released) -> None:
    with pytest.raises(ModelError) as caught:
        import_weights("redimnet_b2", released("b0"))
    text = str(caught.value)
    assert "b0.pt as redimnet_b2: its model_config is not redimnet_b2: channels, stages" in text
    assert "import it as redimnet_b0 or redimnet" in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"feat_type": "tf"}, r"asks for feat_type='tf'"),
        ({"spec_params": {"norm_signal": True}}, r"asks for norm_signal=True"),
        ({"num_classes": 5994}, r"asks for num_classes=5994"),
        ({"emb_bn": True}, r"asks for emb_bn=True"),  # in no list of tensors
        ({"a_new_switch": 3}, r"asks for a_new_switch=3"),
        ({"block_1d_type": "gru"}, r"time_core"),
        ({"group_divisor": None}, r"group_channels"),
        ({"stages_setup": [[1, 2, 1]]}, r"has 3 values, not 5"),
    ],
)
def test_a_stored_argument_that_does_not_fit_is_refused(released, changes, reason) -> None:
    with pytest.raises(ModelError, match=reason):
        import_weights("redimnet", released("b0", **changes))


def test_augmentation_and_dropout_in_a_stored_config_change_no_result(released, shared) -> None:
    vectors = golden.read(shared, "redimnet_io")
    spectrum = {"do_spec_aug": True, "freq_mask_width": [0, 6], "time_mask_width": [0, 8]}
    file = released("b0", spec_params=spectrum, feat_agg_dropout=0.1, class_dropout=0.3)
    model = import_weights("redimnet_b0", file).eval()
    assert model.config.aggregation_dropout == 0.1
    with torch.inference_mode():
        embeddings = model(vectors["input.wave"])
    assert golden.relative_error(embeddings, vectors["b0.eval.emb"]) < golden.OUTPUT
