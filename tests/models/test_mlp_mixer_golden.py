"""The MLP-Mixers against their published code: two sizes on log-mel, one on the waveform."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from glottis.models import SpeakerModel, import_weights
from helpers import golden

# vectors, name here, parameters, options that the file must imply
CASES = [
    ("mlp_mixer_cfg", "mlp_mixer_small", 2_664_576),
    ("mlp_mixer_default", "mlp_mixer", 7_844_864),
    ("mlp_mixer_raw", "mlp_mixer_raw", 7_843_936),
]
NAMES = [case[:2] for case in CASES]

NORMED = 1e-3
"""of embeddings in training: their batch norm sees two clips, and blows up rounding of near ones"""


@pytest.fixture
def load(shared: Path, tmp_path: Path):
    def imported(name: str, arch: str, **features: str) -> SpeakerModel:
        file = golden.save_state(
            golden.filled_state(shared, f"dim_{name}", seed=11), tmp_path / f"{name}.safetensors"
        )
        model = import_weights(arch, file, features=features)
        assert isinstance(model, SpeakerModel)
        return model

    return imported


def training_loss(embeddings: Tensor) -> Tensor:
    return embeddings.square().mean() + 0.01 * embeddings[:, :8].sum()


@pytest.mark.parametrize(("name", "arch", "count"), CASES)
def test_embeddings_equal_the_original(load, shared, name, arch, count) -> None:
    vectors = golden.read(shared, "dim_models_io")
    model = load(name, arch).eval()
    assert model.num_parameters == count
    pooled: list[Tensor] = []
    hook = model.network.pooling.register_forward_hook(lambda *call: pooled.append(call[-1]))
    with torch.inference_mode():
        together = model(vectors["input.wave"])
        hook.remove()
        alone = torch.cat([model(wave[None]) for wave in vectors["input.wave"]])
    reference = vectors[f"{name}.eval.emb"]
    assert golden.relative_error(together, reference) < golden.OUTPUT
    assert golden.relative_error(alone, reference) < golden.OUTPUT
    statistics = torch.stack([pooled[0].mean(), pooled[0].abs().mean(), pooled[0].norm()])
    expected = vectors[f"{name}.eval.pooling.stat"]
    assert golden.relative_error(statistics, expected) < golden.OUTPUT


@pytest.mark.parametrize(("name", "arch"), NAMES)
def test_training_loss_and_gradients_equal_the_original(load, shared, name, arch) -> None:
    # float64, because noise in the features flips maxima
    vectors = golden.read(shared, "dim_models_io")
    wave = vectors["input.wave"]
    features = {} if arch == "mlp_mixer_raw" else {"precision": "double"}
    model = golden.without_dropout(load(name, arch, **features))
    network = model.network.double().train()
    x = wave if model.frontend is None else model.frontend(wave)
    embeddings = network(x.double())
    loss = training_loss(embeddings)
    assert golden.relative_error(embeddings, vectors[f"{name}.train.emb"]) < NORMED
    expected = float(vectors[f"{name}.train.loss"])
    assert float(loss.detach()) == pytest.approx(expected, rel=golden.LOSS)
    loss.backward()
    reference = golden.reference_norms(vectors, f"{name}.train.gradnorm.")
    golden.assert_gradients_match(golden.gradient_norms(network), reference)


@pytest.mark.parametrize(
    ("name", "arch", "first", "second"),
    [
        (
            "mlp_mixer_cfg",
            "mlp_mixer_small",
            "mixer_blocks.2.token_mixing.fc2.bias",
            "mixer_blocks.2.channel_mixing.fc2.bias",
        ),
        (
            "mlp_mixer_raw",
            "mlp_mixer_raw",
            "mixer_blocks.2.norm1.bias",
            "mixer_blocks.2.id_conv.bn.bias",
        ),
    ],
)
def test_two_swapped_tensors_break_the_parity(shared, tmp_path, name, arch, first, second) -> None:
    vectors = golden.read(shared, "dim_models_io")
    state = golden.swapped(golden.filled_state(shared, f"dim_{name}", seed=11), first, second)
    file = golden.save_state(state, tmp_path / "swapped.safetensors")
    with torch.inference_mode():
        embeddings = import_weights(arch, file).eval()(vectors["input.wave"])
    assert golden.relative_error(embeddings, vectors[f"{name}.eval.emb"]) > golden.OUTPUT
