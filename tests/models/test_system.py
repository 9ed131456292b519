"""create_model joins front end and network; files in, embeddings and scores out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from glottis.errors import AudioError, ConfigError, ModelError
from glottis.features import FEATURES
from glottis.models import (
    MODELS,
    SpeakerModel,
    SpoofModel,
    SpoofOutput,
    build_model,
    create_model,
)
from glottis.models.system import segments
from glottis.rng import generator


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for index, seconds in enumerate([1.0, 2.5, 1.04]):
        samples = generator(index, "file").standard_normal(int(seconds * 16000)) * 0.1
        paths.append(tmp_path / f"{index}.wav")
        soundfile.write(paths[-1], samples.astype(np.float32), 16000)
    return paths


def test_a_speaker_model_takes_waveforms() -> None:
    model = create_model("resnetse34l", embedding_size=32, pooling="asp", features={"num_mels": 24})
    assert isinstance(model, SpeakerModel)
    assert model(torch.randn(2, 8000)).shape == (2, 32)
    assert (model.name, model.task, model.embedding_size) == ("resnetse34l", "speaker", 32)
    assert model.frontend is not None
    assert model.frontend.num_features == 24
    assert model.sample_rate == 16000
    assert model.features_config is not None
    assert model.features_config.normalise == "mean_var"  # the network's default stays


def test_a_countermeasure_takes_waveforms() -> None:
    model = create_model("aasist_l")
    assert isinstance(model, SpoofModel)
    output = model(torch.randn(2, 4000))
    assert isinstance(output, SpoofOutput)
    assert output.embedding.shape == (2, 160)
    assert output.logits.shape == (2, 2)
    assert torch.equal(output.score, output.logits[:, 1])
    torch.testing.assert_close(output.probability, output.logits.softmax(1)[:, 1])
    assert model.frontend is None
    assert model.window.seconds == 64600 / 16000


def test_the_shortest_wave_gives_the_fewest_frames() -> None:
    model = create_model("resnetse34l", embedding_size=8).eval()
    assert model.frontend is not None
    assert model.frontend.num_frames(model.min_samples) == 10
    assert model.frontend.num_frames(model.min_samples - 1) == 9
    assert model(torch.randn(1, model.min_samples)).shape == (1, 8)
    with pytest.raises(ModelError, match="needs at least 1440"):
        model(torch.randn(1, model.min_samples - 1))


def test_another_front_end_can_be_named() -> None:
    model = create_model("resnetse34l", embedding_size=8, features={"name": "mfcc"})
    assert model.features_config == FEATURES.config("mfcc")
    assert model(torch.randn(1, 8000)).shape == (1, 8)


def test_wrong_requests_are_explained() -> None:
    with pytest.raises(ConfigError, match="unknown key; did you mean 'embedding_size'"):
        create_model("resnetse34l", embeding_size=3)
    with pytest.raises(ConfigError, match="did you mean aasist"):
        create_model("aasit")
    with pytest.raises(ConfigError, match="takes the waveform itself"):
        create_model("aasist", features={"num_mels": 40})
    with pytest.raises(ConfigError, match="takes the waveform itself"):
        build_model(MODELS.config("aasist"), FEATURES.config("logmel"))
    with pytest.raises(ModelError, match=r"shape \(8000,\)"):
        create_model("aasist")(torch.randn(8000))
    with pytest.raises(ModelError, match="float32 in"):
        create_model("aasist")(torch.zeros(1, 8000, dtype=torch.int16))


def test_a_seed_fixes_the_initial_weights_and_nothing_else() -> None:
    before = torch.get_rng_state()
    first, second = (create_model("aasist_l", seed=5).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = create_model("aasist_l", seed=6).state_dict()
    assert not torch.equal(first["network.position"], other["network.position"])


def test_build_model_equals_create_model() -> None:
    config = MODELS.config("resnetse34l", embedding_size=8)
    features = FEATURES.config("logmel", num_mels=24)
    built = build_model(config, features, seed=1)
    assert built.config == config
    assert built.features_config == features
    assert build_model(config).features_config == create_model("resnetse34l").features_config


def test_every_option_is_read() -> None:
    from glottis.config import require_all_read

    for name in MODELS.names():
        model = create_model(name)
        require_all_read(model.config)


def test_embeddings_of_files_have_unit_length_and_their_order(files: list[Path]) -> None:
    model = create_model("resnetse34l", embedding_size=16, seed=0)
    model.train()
    embeddings = model.embed(files)
    assert embeddings.shape == (3, 16)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    assert model.training
    for index, path in enumerate(files):
        torch.testing.assert_close(model.embed([path])[0], embeddings[index], rtol=1e-4, atol=1e-5)
    model.dims = (4, 16)
    short = model.embed(files, dim=4)
    torch.testing.assert_close(short, torch.nn.functional.normalize(embeddings[:, :4], dim=1))
    with pytest.raises(ConfigError, match="dim=5 was not trained: there are embeddings of 4, 16"):
        model.embed(files, dim=5)


def test_a_file_verifies_against_itself(files: list[Path]) -> None:
    model = create_model("resnetse34l", embedding_size=16, seed=0)
    assert model.verify(files[0], files[0]).score == pytest.approx(1.0, abs=1e-5)
    assert model.verify(files[0], str(files[1])).score < 1.0


def test_detection_covers_the_file_in_segments(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    samples = generator(0, "long").standard_normal(int(16000 * 10.5)).astype(np.float32) * 0.1
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    model = create_model("aasist", channels=(8, 8), graph_sizes=(8, 8), seed=0)
    result = model.detect(path)
    assert len(result.segment_scores) == 3  # 4.04 + 4.04 + 2.4 seconds
    assert result.segment_seconds == 64600 / 16000
    assert result.score == pytest.approx(np.mean(result.segment_scores))
    assert result.probability is not None
    assert 0 < result.probability < 1
    one_class = build_model(model.config, seed=0, classifier="one_class").eval()
    assert isinstance(one_class, SpoofModel)
    assert one_class.detect(path).probability is None  # a cosine is no logarithm of a probability
    with torch.inference_mode():
        first = model.eval()(torch.from_numpy(samples[None, :64600])).score
    assert result.segment_scores[0] == pytest.approx(float(first), rel=1e-4, abs=1e-5)


def test_a_file_with_nothing_to_judge_is_refused(tmp_path: Path) -> None:
    for name, samples in (("silent", np.zeros(16_000)), ("short", np.tile([-0.1, 0.1], 50))):
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000)
    speaker = create_model("resnetse34l", embedding_size=8)
    for name, said in (("silent", "digital silence"), ("short", "less than 0.1 s")):
        path = tmp_path / f"{name}.wav"
        with pytest.raises(AudioError, match=said):
            speaker.embed([path])
        with pytest.raises(AudioError, match=said):
            create_model("aasist_l").detect(path)


@pytest.mark.parametrize(
    ("length", "expected"), [(3, [3]), (10, [10]), (14, [10]), (15, [10, 5]), (29, [10, 10, 9])]
)
def test_a_rest_of_half_a_window_counts(length: int, expected: list[int]) -> None:
    assert [len(piece) for piece in segments(np.zeros(length), 10)] == expected
