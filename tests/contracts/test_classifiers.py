"""What a countermeasure promises of its classifier, so that a loss may ask for another one.

Shapes: B batch, S samples, D embedding.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glottis.errors import ConfigError
from glottis.models import MODELS, Model, SpoofOutput, build_model, load_model, save_model
from glottis.models.parts.classifier import Kind
from glottis.rng import generator
from helpers.tiny_ssl import architecture, needs_ssl

# options that make every network small enough for these tests
SMALL: dict[str, dict[str, Any]] = {
    "aasist": {"channels": [8, 16]},
    "aasist_l": {"channels": [8, 12]},
    "conformer_cm": {"num_blocks": 1, "embedding_size": 24},
    "lcnn": {"embedding_size": 16},
    "rawnet2": {"gru_size": 32, "gru_layers": 1, "embedding_size": 24},
    "res2net50_cm": {"num_blocks": [1, 1, 1, 1], "channels": 4},
    "se_res2net50_cm": {"num_blocks": [1, 1, 1, 1], "channels": 4},
    "se_resnet": {"channels": [16, 16, 16, 32], "layers": [1, 1, 1, 1]},
    "se_resnet_deep": {"channels": [16, 16, 16, 32], "layers": [1, 2, 1, 1]},
    "se_resnet_small": {"channels": [16, 16, 16, 16]},
    "ssl_aasist": {
        "encoder": {"trainable": "full", "architecture": architecture("wav2vec2")},
        "channels": [8, 16],
    },
    "ssl_mhfa_spoof": {
        "encoder": {"kind": "hubert", "architecture": architecture("hubert")},
        "heads": 4,
        "compressed_size": 16,
        "embedding_size": 24,
    },
}
# a bias that a softmax over frames takes away
SHIFTS = ("pooling.expand.bias",)
SAMPLES = 6_000

SPOOF = [name for name in MODELS.names() if MODELS[name].target.task == "spoof"]
every_countermeasure = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=needs_ssl) if name.startswith("ssl_") else name for name in SPOOF],
)
on_cosines = pytest.mark.parametrize("kind", ["one_class", "cosine"])


@cache
def made(name: str, kind: Kind) -> Model:
    config = MODELS.config(name, **SMALL.get(name, {}))
    return build_model(config, seed=0, classifier=kind)


def noise(model: Model, batch: int) -> Tensor:
    """(B, S)."""
    shape = batch, max(SAMPLES, model.min_samples)
    drawn = generator(3, "classifiers").standard_normal(shape).astype(np.float32)
    return torch.from_numpy(0.1 * drawn)


def judged(model: Model, wave: Tensor) -> SpoofOutput:
    with torch.inference_mode():
        output = model.eval()(wave)
    assert isinstance(output, SpoofOutput)
    return output


@every_countermeasure
def test_the_classifier_makes_the_logits_of_the_embedding_alone(name: str) -> None:
    model = made(name, "linear")
    output = judged(model, noise(model, 2))
    with torch.inference_mode():
        again = model.network.classifier(output.embedding)
    torch.testing.assert_close(output.logits, again)
    assert output.logits.std() > 0


@every_countermeasure
@on_cosines
def test_its_replacement_gives_cosines_of_the_embedding(name: str, kind: Kind) -> None:
    model = made(name, kind)
    output = judged(model, noise(model, 3))
    vectors = {key: value for key, value in model.named_parameters() if "classifier" in key}
    assert list(vectors) == ["network.classifier.directions"], "the old classifier is gone"
    directions = vectors["network.classifier.directions"].detach().double()
    embedding = output.embedding.double()
    lengths = embedding.norm(dim=1, keepdim=True) * directions.norm(dim=1)
    cosine = embedding @ directions.T / lengths
    expected = torch.cat([-cosine, cosine], dim=1) if kind == "one_class" else cosine
    torch.testing.assert_close(output.logits.double(), expected, rtol=1e-5, atol=1e-6)
    assert (output.score - output.score[0]).abs().max() > 0, "it tells no clip from another"


@every_countermeasure
@on_cosines
def test_the_score_reaches_every_trained_parameter(name: str, kind: Kind) -> None:
    model = made(name, kind).train()
    model.zero_grad()
    output = model(noise(model, 4), **model.draw(generator(0, "draw")))
    (output.logits[:, 1] * torch.tensor([1.0, -2.0, 3.0, -0.5])).sum().backward()
    dead = []
    for parameter_name, parameter in model.network.named_parameters():
        if any(fnmatchcase(parameter_name, p) for p in model.network.unused_parameters):
            assert not parameter.requires_grad, parameter_name
            continue
        gradient = parameter.grad
        if parameter_name in SHIFTS:
            assert gradient is not None
        elif gradient is None or not (gradient != 0).any() or not gradient.isfinite().all():
            dead.append(parameter_name)
    assert not dead


@every_countermeasure
@on_cosines
def test_a_saved_model_scores_as_the_trained_one(name: str, kind: Kind, tmp_path: Path) -> None:
    model = made(name, kind)
    wave = noise(model, 2)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.classifier_kind == kind
    assert torch.equal(judged(loaded, wave).score, judged(model, wave).score)


@every_countermeasure
@pytest.mark.parametrize("kind", ["linear", "one_class", "cosine"])
def test_scores_are_float32_under_autocast(name: str, kind: Kind) -> None:
    model = made(name, kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = judged(model, noise(model, 1))
    assert output.logits.dtype == torch.float32
    assert output.embedding.dtype == torch.float32


def test_a_network_of_another_task_has_no_classifier_to_replace() -> None:
    with pytest.raises(ConfigError, match="resnetse34l is no countermeasure"):
        build_model(MODELS.config("resnetse34l"), classifier="cosine")


def test_an_unknown_classifier_is_refused() -> None:
    config = MODELS.config("lcnn", embedding_size=8)
    with pytest.raises(ConfigError, match="one_class"):
        build_model(config, classifier="cosin")  # type: ignore[arg-type]
