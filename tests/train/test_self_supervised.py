"""Training on self-supervised front ends: what moves, what a checkpoint needs, two processes."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from glottis.config import to_yaml
from glottis.errors import ConfigError, ModelError
from glottis.models import load_model
from glottis.models.parts.self_supervised import Backbone
from glottis.train import train_recipe
from helpers.tiny_ssl import architecture, needs_ssl, published
from helpers.tones import recipe, speaker_tree

pytestmark = needs_ssl


def tree(tones: Path, encoder: dict[str, Any], **changes: Any) -> dict[str, Any]:
    model = {"name": "ssl_mhfa", "heads": 2, "compressed_size": 8, "embedding_size": 16}
    return speaker_tree(tones, model={**model, "encoder": encoder}, **changes)


def test_a_checkpoint_with_adapters_needs_no_published_files(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = published("wavlm", tmp_path / "published")
    encoder = {"kind": "wavlm", "weights": str(tmp_path / "published"), "trainable": "lora"}
    with caplog.at_level(logging.WARNING):
        train_recipe(recipe(tree(tones, encoder, train__steps=3)), tmp_path / "run")
    assert "random weights" not in caplog.text
    shutil.rmtree(tmp_path / "published")
    model = load_model(tmp_path / "run" / "checkpoints" / "best")
    files = sorted(str(path) for path in tones.glob("s00_*_bonafide.wav"))
    assert torch.isfinite(model.embed(files)).all()
    moved = 0
    for name, value in model.network.backbone.network.state_dict().items():
        if "lora_B" in name:
            moved += bool(value.any())
        elif "lora_" not in name:
            assert torch.equal(value, network.state_dict()[name.replace(".base_layer", "")]), name
    assert moved == 4


def test_random_weights_are_told(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = {"kind": "hubert", "architecture": architecture("hubert")}
    with caplog.at_level(logging.WARNING):
        train_recipe(recipe(tree(tones, encoder, train__steps=1)), tmp_path / "run")
    assert "the self-supervised network of ssl_mhfa starts at random weights" in caplog.text


def test_the_word_of_a_saved_model_is_no_source_of_weights(tones: Path, tmp_path: Path) -> None:
    sizes = architecture("hubert")
    encoder = {"kind": "hubert", "weights": "stored", "architecture": sizes}
    with pytest.raises(ConfigError, match="no folder to read them from"):
        train_recipe(recipe(tree(tones, encoder, train__steps=1)), tmp_path / "run")


def test_adapters_that_no_gradient_reaches_stop_the_first_step(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WavLM reads q_proj and v_proj without calling them: without the check at the start, the
    engine's own finds it; and a recipe does not even come so far."""
    targets = {"lora_targets": ["q_proj", "v_proj"]}
    encoder = {"kind": "wavlm", "trainable": "lora", "architecture": architecture("wavlm")}
    made = recipe(tree(tones, {**encoder, **targets}, train__steps=3, evaluate={}))
    with pytest.raises(ModelError, match="8 of 8 adapter weights receive no gradient"):
        train_recipe(made, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    monkeypatch.setattr(Backbone, "_require_gradients", lambda self: None)
    with pytest.raises(ModelError, match=r"O2.*no gradient reaches 8 .*q_proj\.lora_A"):
        train_recipe(made, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))


@pytest.mark.slow
@pytest.mark.parametrize("trainable", ["full", "lora", "frozen"])
def test_two_processes_equal_one(tones: Path, tmp_path: Path, trainable: str) -> None:
    """Every trained parameter takes part in every step: DDP would wait for one that does not."""
    sizes = architecture("wavlm", hidden_dropout=0.0, attention_dropout=0.0)
    encoder = {
        "kind": "wavlm",
        "trainable": trainable,
        "architecture": {**sizes, "activation_dropout": 0.0},
    }
    sgd = {"name": "sgd", "rate": 1e-3, "momentum": 0.9}
    made = tree(tones, encoder, train__steps=2, optim=sgd, train__clip_norm=1.0)
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(recipe(made)))
    one, two = tmp_path / "one", tmp_path / "two"
    train_recipe(recipe(made), one)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", "2", "-m", "glottis", "train", str(path), "--out", str(two)),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    a, b = (load_file(f / "checkpoints/latest/model.safetensors") for f in (one, two))
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)
