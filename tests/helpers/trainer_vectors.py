"""``golden/vox_models_io``: reference vectors of the public trainer's networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from glottis.models import SpeakerModel
from helpers import golden

FILE = "vox_models_io"
SEED = 2024


def training_loss(embeddings: Tensor) -> Tensor:
    """The loss of the ``train.*`` vectors."""
    return embeddings.square().mean() + 0.01 * embeddings[:, :8].sum()


def assert_outputs_match(model: SpeakerModel, vectors: dict[str, Tensor], name: str) -> None:
    """Embeddings in eval mode, as a batch and one by one."""
    with torch.inference_mode():
        together = model.eval()(vectors["input.wave"])
        alone = torch.cat([model(wave[None]) for wave in vectors["input.wave"]])
    for found in (together, alone):
        assert golden.relative_error(found, vectors[f"{name}.eval.emb"]) < golden.OUTPUT


def assert_layers_match(
    model: SpeakerModel, vectors: dict[str, Tensor], name: str, layers: dict[str, str]
) -> None:
    """Mean, mean magnitude and norm of inner outputs.  layers: published name -> ours."""
    seen: dict[str, Tensor] = {}
    for published, ours in layers.items():

        def keep(_module, _inputs, output, published=published):
            size = [output.mean(), output.abs().mean(), output.norm()]
            seen[published] = torch.stack(size)  # before a later operation works in place

        model.network.get_submodule(ours).register_forward_hook(keep)
    with torch.inference_mode():
        model.eval()(vectors["input.wave"])
    assert seen.keys() == layers.keys()
    for published, found in seen.items():
        reference = vectors[f"{name}.eval.{published}.stat"]
        assert golden.relative_error(found, reference) < 1e-5, published


def assert_training_matches(model: SpeakerModel, vectors: dict[str, Tensor], name: str) -> None:
    """Embeddings and loss in train mode."""
    with torch.no_grad():
        embeddings = model.train()(vectors["input.wave"])
    assert golden.relative_error(embeddings, vectors[f"{name}.train.emb"]) < golden.OUTPUT
    found, expected = training_loss(embeddings), float(vectors[f"{name}.train.loss"])
    assert abs(float(found) - expected) < golden.LOSS * abs(expected)


def assert_gradients_match(
    network: nn.Module, x: Tensor, vectors: dict[str, Tensor], name: str, noise: float = 1e-5
) -> None:
    """Gradient norms of the training loss for the input ``x``; noise: see `golden`."""
    training_loss(network.train()(x)).backward()
    reference = golden.reference_norms(vectors, f"{name}.train.gradnorm.")
    golden.assert_gradients_match(golden.gradient_norms(network), reference, noise)


def reference_features(
    wave: Tensor,
    num_mels: int,
    *,
    hann: bool = False,
    pre_emphasis: bool = False,
    logarithm: bool = True,
) -> Tensor:
    """The trainer's front end once more: its float32 tables, but float64 arithmetic."""
    if pre_emphasis:
        factor = float(np.float32(0.97))
        wave = wave.double()
        wave = wave - factor * torch.cat([wave[:, 1:2], wave[:, :-1]], dim=1)
    hz = torch.linspace(0, 8000, 257)
    mel = torch.linspace(0, 2595 * np.log10(1 + 8000 / 700), num_mels + 2)
    corners = 700 * (10.0 ** (mel / 2595) - 1)
    widths = corners[1:] - corners[:-1]
    slopes = corners[:, None] - hz
    filters = torch.minimum(-slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None])
    window = (torch.hann_window if hann else torch.hamming_window)(400).double()
    spectrum = torch.stft(wave.double(), 512, 160, 400, window=window, return_complex=True)
    energy = filters.clamp_min(0).double() @ spectrum.abs().square() + 1e-6  # (B, F, T)
    return torch.nn.functional.instance_norm(energy.log() if logarithm else energy)


def save_filled(shared: Path, folder: Path, name: str, **tensors: Tensor) -> Path:
    """The weights of ``name`` by the fill recipe as a file; tensors: what the recipe skips."""
    file = folder / f"{name}.safetensors"
    state = golden.filled_state(shared, f"vox_{name}", seed=SEED)
    return golden.save_state({**state, **tensors}, file)
