"""ECAPA-TDNN against wespeaker's and SpeechBrain's code, through the public importer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from glottis.errors import ModelError
from glottis.models import SpeakerModel, create_model, import_weights, import_with_report
from helpers import golden

CASES = [
    ("ecapa_512", "wespeaker_ecapa512_glob_astp192", 6_190_720),
    ("ecapa_512", "wespeaker_ecapa512_astp192", 5_797_504),
    ("ecapa_1024", "speechbrain_ecapa1024_192", 20_767_552),
]
LARGER = [
    ("ecapa_1024", "wespeaker_ecapa1024_glob_astp192", 14_657_088),
    ("ecapa_1024", "wespeaker_ecapa1024_astp192", 14_263_872),
]


@pytest.fixture(scope="module")
def load(shared: Path, tmp_path_factory: pytest.TempPathFactory):
    @cache
    def imported(arch: str, name: str) -> SpeakerModel:
        state = golden.filled_state(shared, f"importer_{name}", seed=5)
        file = golden.save_state(state, tmp_path_factory.mktemp(name) / "weights.safetensors")
        model = import_weights(arch, file)
        assert isinstance(model, SpeakerModel)
        return model

    return imported


@pytest.mark.parametrize(
    ("arch", "name", "count"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in LARGER)],
)
def test_embeddings_equal_the_original(load, shared, arch, name, count) -> None:
    golden.assert_importer_matches(load(arch, name), shared, name, count)


def test_two_swapped_tensors_break_the_parity(shared, tmp_path) -> None:
    name = "wespeaker_ecapa512_glob_astp192"
    state = golden.filled_state(shared, f"importer_{name}", seed=5)
    blocks = [f"layer3.se_res2block.1.convs.{i}.weight" for i in (2, 3)]
    state = golden.swapped(state, *blocks)
    model = import_weights("ecapa_512", golden.save_state(state, tmp_path / "swapped.safetensors"))
    assert golden.importer_error(model, shared, name) > golden.OUTPUT


def test_the_front_end_follows_the_format(load) -> None:
    wespeaker = load("ecapa_512", "wespeaker_ecapa512_glob_astp192")
    assert wespeaker.features_config.name == "kaldi_fbank"
    assert wespeaker.features_config.window == "hamming"
    speechbrain = load("ecapa_1024", "speechbrain_ecapa1024_192")
    assert speechbrain.features_config.name == "logmel"
    assert speechbrain.features_config.mel_slopes == "symmetric"
    assert speechbrain.config.variant == "speechbrain"
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.inference_mode():
        for model in (wespeaker, speechbrain):
            assert torch.isfinite(model.eval()(wave)).all()


def test_the_classifier_in_a_training_checkpoint_is_left_out(shared, tmp_path) -> None:
    state = golden.filled_state(shared, "importer_wespeaker_ecapa512_astp192", seed=5)
    state["projection.weight"] = torch.zeros(17_982, 192)
    file = golden.save_state(state, tmp_path / "avg_model.safetensors")
    _, report = import_with_report("ecapa_512", file)
    assert report.unexpected == ("projection.weight",)
    assert report.format == "wespeaker"
    assert "format: wespeaker" in str(report)


def test_another_size_is_refused(shared, tmp_path) -> None:
    state = golden.filled_state(shared, "importer_wespeaker_ecapa512_astp192", seed=5)
    file = golden.save_state(state, tmp_path / "c512.safetensors")
    with pytest.raises(ModelError, match=r"layer1\.conv\.weight|stem\.conv\.weight"):
        import_weights("ecapa_1024", file)


@pytest.mark.parametrize("size", [5, 16, 100])
def test_the_squeeze_has_as_many_hidden_units_as_asked_for(size: int) -> None:
    model = create_model("ecapa_512", channels=64, squeeze_size=size)
    assert {block.squeeze.reduce.out_features for block in model.network.blocks} == {size}


def test_channels_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ModelError, match="cannot be cut into groups=8"):
        create_model("ecapa_512", channels=100)


@pytest.mark.parametrize("variant", ["wespeaker", "speechbrain"])
def test_every_frame_of_the_receptive_field_is_heard(variant: str) -> None:
    # kernel 5, and chains of 7 kernels of 3 with dilations 2, 3, 4: 2 + 7 (2 + 3 + 4) on each side
    network = create_model("ecapa_512", channels=16, variant=variant, seed=0).network.eval()
    for parameter in network.double().parameters():
        parameter.data.abs_()  # no ReLU is closed
    features = torch.ones(1, 80, 201, dtype=torch.float64, requires_grad=True)
    x = network.stem(features)
    for block in network.blocks:
        x = block.leave(block.scales(block.enter(x)))  # without the gate, which hears everything
    x[:, :, 100].sum().backward()
    heard = features.grad[0].abs().sum(0).nonzero().flatten()
    assert (int(heard.min()), int(heard.max())) == (100 - 65, 100 + 65)
