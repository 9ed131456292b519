"""Several front ends at once: what is stacked, how frames meet, what a recipe may say."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glottis.config import build, fingerprint, require_all_read, to_tree, to_yaml, unread
from glottis.configfile import apply_overrides
from glottis.errors import AudioError, ConfigError
from glottis.features import FEATURES, FrontEnd, build_features
from glottis.rng import torch_generator

LOGMEL = {"name": "logmel", "num_mels": 24, "normalise": "mean"}
PROSODY = {"name": "prosody"}
FBANK = {"name": "kaldi_fbank", "num_mels": 24}


def fused(*streams: dict[str, object]) -> FrontEnd:
    return build_features(FEATURES.config("fused", streams=list(streams)))


def alone(stream: dict[str, object]) -> FrontEnd:
    options = dict(stream)
    return build_features(FEATURES.config(str(options.pop("name")), **options))


def noise(samples: int = 8_000) -> Tensor:
    return torch.randn(2, samples, generator=torch_generator(4, samples)) * 0.1


def test_streams_are_stacked_in_their_order() -> None:
    wave, module = noise(), fused(LOGMEL, PROSODY)
    assert module.num_features == 31
    assert module.min_samples == 768  # of the stream that needs most
    features = module(wave)
    assert torch.equal(features[:, :24], alone(LOGMEL)(wave))
    assert torch.equal(features[:, 24:], alone(PROSODY)(wave))
    assert torch.equal(fused(PROSODY, LOGMEL)(wave)[:, 7:], alone(LOGMEL)(wave))
    with pytest.raises(AudioError, match=r"767 samples.*768"):
        module(noise(767))


def test_streams_are_normalised_each_on_its_own() -> None:
    features = fused({**LOGMEL, "normalise": "mean_var"}, {**LOGMEL, "normalise": "none"})(noise())
    variance = features[:, :24].var(-1, correction=0)
    torch.testing.assert_close(variance, torch.ones(2, 24), rtol=1e-3, atol=0)
    assert float(features[:, 24:].mean(-1).abs().min()) > 0.1


def test_frames_with_the_nearest_centres_meet() -> None:
    # frame t of the filterbank lies around sample 160 t + 200, nearest to centred frame t + 1
    module = fused(FBANK, {**LOGMEL, "normalise": "none"})
    for samples in (400, 559, 560, 8_000):
        wave = noise(samples)
        features = module(wave)
        num_frames = (samples - 400) // 160 + 1
        assert features.shape == (2, 48, num_frames) == (2, 48, module.num_frames(samples))
        assert torch.equal(features[:, :24], alone(FBANK)(wave))
        centred = alone({**LOGMEL, "normalise": "none"})(wave)
        assert torch.equal(features[:, 24:], centred[:, :, 1 : num_frames + 1])


def test_a_click_is_in_the_same_frame_of_all_streams() -> None:
    wave = torch.zeros(1, 8_000)
    wave[0, 160 * 20 + 200] = 1.0  # in the middle of frame 20 of the filterbank
    cqt = {"name": "cqt", "hop_samples": 160, "low_hz": 1000.0, "num_bins": 12}
    features = fused(FBANK, {**LOGMEL, "normalise": "none"}, {**cqt, "log_floor": 1e-6})(wave)
    loudest = [int(part.mean(1)[0].argmax()) for part in features.split([24, 24, 12], dim=1)]
    assert loudest == [20, 20, 20]


def test_front_ends_may_be_fused_again() -> None:
    wave = noise()
    nested = fused({"name": "fused", "streams": [LOGMEL, FBANK]}, PROSODY)
    flat = fused(LOGMEL, FBANK, PROSODY)
    torch.testing.assert_close(nested(wave), flat(wave))


@pytest.mark.parametrize(
    ("streams", "text"),
    [
        ([LOGMEL, {"name": "cqt"}], r"hop_samples: 160 in streams\.0 \(logmel\), 512 in streams"),
        ([{**LOGMEL, "sample_rate": 16_001}, PROSODY], "differ in sample_rate: 16001 in"),
        ([], "has no streams"),
        ([{"name": "logmell"}], "did you mean logmel"),
        ([LOGMEL, {"name": "prosody", "lowhz": 70.0}], r"streams\.1\.lowhz: unknown key; did you"),
        ([{"name": "logmel", "num_mels": "40"}], r"streams\.0\.num_mels: .*remove the quotes"),
        ([{"num_mels": 40}], r"streams\.0: needs 'name'"),
        (LOGMEL, "streams: must be a list, not a section"),
        ("logmel", "streams: must be a list"),
    ],
)
def test_impossible_streams_are_refused_by_name(streams: object, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build_features(FEATURES.config("fused", streams=streams))


def test_every_problem_of_every_stream_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="2 problems") as caught:
        FEATURES.config("fused", streams=[{**LOGMEL, "hop": 1}, {"name": "cqt", "bins": 84}])
    assert "streams.0.hop: unknown key" in str(caught.value)
    assert "streams.1.bins: unknown key" in str(caught.value)


def test_a_fused_config_is_shown_whole_and_read_whole() -> None:
    config = FEATURES.config("fused", streams=[LOGMEL, PROSODY])
    assert "streams.1.octave_cost" in unread(config)
    build_features(config)
    require_all_read(config)
    text = to_yaml(config)
    assert "num_mels: 24" in text
    assert "voicing_threshold: 0.45" in text  # the defaults of a stream as well
    tree = to_tree(config)
    assert [stream["name"] for stream in tree["streams"]] == ["logmel", "prosody"]
    again = FEATURES.config(**tree)
    assert again == config == pickle.loads(pickle.dumps(config))
    assert fingerprint(again) == fingerprint(config)
    other = FEATURES.config("fused", streams=[LOGMEL, {**PROSODY, "low_hz": 70.0}])
    assert fingerprint(other) != fingerprint(config)


def test_a_stream_can_be_overridden_on_the_command_line() -> None:
    tree = {"name": "fused", "streams": [dict(LOGMEL), dict(PROSODY)]}
    changed = apply_overrides({"features": tree}, ["features.streams.0.num_mels=30"])
    config = FEATURES.config(**changed["features"])
    assert build_features(config).num_features == 37


def test_a_recipe_takes_a_fused_front_end(tmp_path: Path) -> None:
    from glottis.train import Recipe, load_recipe

    path = tmp_path / "recipe.yaml"
    path.write_text(
        """
task: spoof
data: {root: ., manifest: manifest.csv}
batch: {size: 4}
features:
  name: fused
  streams:
    - {name: logmel, num_mels: 24}
    - {name: prosody}
model: {name: se_resnet_small}
loss: {name: weighted_cross_entropy}
optim: {name: adam, rate: 1.0e-4}
train: {epochs: 1}
"""
    )
    recipe = load_recipe(path, ["features.streams.1.high_hz=400.0"])
    assert recipe.features is not None
    assert build_features(recipe.features).num_features == 31
    assert "features.streams.0.num_mels" not in unread(recipe)
    shown = to_tree(recipe)["features"]
    assert shown["streams"][1] == to_tree(FEATURES.config("prosody", high_hz=400.0))
    assert build(Recipe, to_tree(recipe)).features == recipe.features
    with pytest.raises(ConfigError, match=r"features\.streams\.1\.lowhz: unknown key"):
        load_recipe(path, ["features.streams.1.lowhz=70.0"])
