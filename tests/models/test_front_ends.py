"""Front ends can be chosen per model: all of them behind several networks, saved and restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glottis.config import require_all_read, to_tree
from glottis.errors import ConfigError, ModelError
from glottis.features import FEATURES
from glottis.models import (
    MODELS,
    Model,
    SpoofOutput,
    create_model,
    load_model,
    read_card,
    save_model,
)
from glottis.models.se_resnet import CQT, LFCC, MFCC, PROSODY
from glottis.rng import torch_generator

FUSED: dict[str, Any] = {
    "name": "fused",
    "streams": [
        {"name": "logmel", "num_mels": 33, "normalise": "mean_var"},
        {"name": "prosody"},
    ],
}
FRONT_ENDS: dict[str, dict[str, Any]] = {
    "cqt": {"name": "cqt", "low_hz": 500.0, "num_bins": 36, "hop_samples": 160},
    "fused": FUSED,
    "kaldi_fbank": {"name": "kaldi_fbank", "num_mels": 40},
    "lfcc": {"name": "lfcc"},
    "logmel": {"name": "logmel", "num_mels": 40},
    "mfcc": {"name": "mfcc", "num_coefficients": 20},
    "prosody": {"name": "prosody"},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "se_resnet_small": {},
    "lcnn": {},
    "resnetse34l": {"embedding_size": 16},
    "ecapa_512": {"channels": 32, "aggregated_channels": 48, "embedding_size": 16},
    "resnet18_wespeaker": {"num_blocks": [1, 1, 1, 1], "channels": 4},
    "nested": {"num_levels": 3},
}
TOO_FEW = {("lcnn", "prosody"): "needs at least 16 features, not 7"}


def noise(samples: int = 8_000) -> Tensor:
    return torch.randn(2, samples, generator=torch_generator(6, samples)) * 0.1


def embedding(output: Tensor | SpoofOutput) -> Tensor:
    return output.embedding if isinstance(output, SpoofOutput) else output


def test_the_list_has_every_front_end() -> None:
    assert sorted(FRONT_ENDS) == FEATURES.names()


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_front_end_stands_before_every_network(network: str, front_end: str) -> None:
    features, options = FRONT_ENDS[front_end], NETWORKS[network]
    if (network, front_end) in TOO_FEW:
        with pytest.raises(ModelError, match=TOO_FEW[network, front_end]):
            create_model(network, features=features, **options)
        return
    model = create_model(network, features=features, seed=0, **options).eval()
    assert model.frontend is not None
    assert model.features_config is not None
    tree = to_tree(model.features_config)
    assert tree["name"] == front_end
    assert all(tree[key] == value for key, value in features.items() if key != "streams")
    require_all_read(model.features_config)
    with torch.inference_mode():
        for wave in (noise(model.min_samples), noise(max(8_000, model.min_samples))):
            output = embedding(model(wave))
            assert output.shape == (2, model.embedding_size)
            assert torch.isfinite(output).all()


@pytest.mark.parametrize("front_end", ["cqt", "fused", "prosody"])
def test_a_model_comes_back_with_its_front_end(tmp_path: Path, front_end: str) -> None:
    features = FRONT_ENDS[front_end]
    model = create_model("se_resnet_small", features=features, seed=3).eval()
    card = save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert torch.equal(loaded(noise()).logits, model(noise()).logits)
    assert loaded.features_config == model.features_config == FEATURES.config(**features)
    assert card["features"] == read_card(tmp_path)["features"] == to_tree(model.features_config)
    assert not any(name.startswith("frontend") for name in model.state_dict())


def test_the_card_of_a_fused_model_says_every_option_of_every_stream(tmp_path: Path) -> None:
    save_model(create_model("se_resnet_small", features=FUSED), tmp_path)
    streams = read_card(tmp_path)["features"]["streams"]
    assert [stream["name"] for stream in streams] == ["logmel", "prosody"]
    assert streams[0]["num_mels"] == 33
    assert streams[0]["fft_size"] == 512  # a default of the stream
    assert streams[1]["voicing_threshold"] == 0.45


@pytest.mark.parametrize(
    ("features", "num_features"), [(LFCC, 13), (MFCC, 13), (CQT, 84), (PROSODY, 7)]
)
def test_the_inputs_of_the_detector_are_front_ends(
    features: dict[str, Any], num_features: int
) -> None:
    model = create_model("se_resnet_small", features=features, seed=0).eval()
    assert model.frontend is not None
    assert model.frontend.num_features == num_features
    assert torch.isfinite(model(noise()).logits).all()


@pytest.mark.parametrize(
    ("network", "features", "text"),
    [
        ("redimnet_b0", {"name": "kaldi_fbank"}, r"80 features\nfix: let it give 72 or 84, or"),
        ("redimnet_b1", {"name": "cqt"}, r"84 features\nfix: let it give \d+ or \d+, or"),
        ("redimnet2_b0", {"name": "cqt"}, r"84 features\nfix: let it give 72 or 96, or"),
        ("resnetse34v2", {"name": "lfcc"}, "60 features, not a multiple of 8"),
        ("vggvox", {"name": "prosody"}, "gives 7 features; this network needs at least 39"),
        ("lcnn", {"name": "mfcc"}, "needs at least 16 features, not 13"),
    ],
)
def test_features_that_do_not_divide_are_explained(
    network: str, features: dict[str, Any], text: str
) -> None:
    with pytest.raises(ModelError, match=text):
        create_model(network, features=features)


@pytest.mark.parametrize("name", MODELS.names())
def test_a_network_takes_either_waves_or_features(name: str) -> None:
    target = MODELS[name].target
    if target.input == "wave":
        with pytest.raises(ConfigError, match="takes the waveform itself"):
            create_model(name, features={"name": "cqt"})
    else:
        assert target.default_features["name"] in FEATURES


def test_the_shortest_clip_of_a_fused_model_is_that_of_its_longest_window() -> None:
    model: Model = create_model("se_resnet_small", features=FUSED)
    assert model.min_samples == 768
    with pytest.raises(ModelError, match="needs at least 768"):
        model(noise(767))
