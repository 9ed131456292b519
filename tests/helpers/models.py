"""Every registered model, small enough to be tested.

Shapes: B batch, S samples.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glottis.models import MODELS, Model, SpoofOutput, create_model
from glottis.rng import generator

# options that make a large model small enough for these tests
REDIM_STAGES = [
    {"stride": 1, "num_blocks": 1, "expansion": 2, "reduction": 48},
    {"stride": 3, "num_blocks": 1, "expansion": 1, "reduction": 24},
]
REDIM2_STAGES = [
    {"bins": 1, "frames": 1, "num_blocks": 1, "expansion": 2.0, "reduction": 24},
    {"bins": 3, "frames": 2, "num_blocks": 1, "expansion": 0.5, "reduction": 24},
]
TINY_TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
TINY_ENCODER = {
    **TINY_TRANSFORMER,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
SMALLER: dict[str, dict[str, Any]] = {
    "aasist": {"channels": [8, 16]},
    "aasist_l": {"channels": [8, 12]},
    "ssl_aasist": {
        "encoder": {"trainable": "full", "architecture": TINY_ENCODER},
        "channels": [8, 16],
    },
    "ssl_ecapa": {
        "encoder": {"kind": "w2v_bert", "trainable": "full", "architecture": TINY_TRANSFORMER},
        "channels": 64,
        "aggregated_channels": 96,
    },
    "ssl_mhfa": {"encoder": {"kind": "wavlm", "trainable": "lora", "architecture": TINY_ENCODER}},
    "ssl_mhfa_spoof": {"encoder": {"kind": "hubert", "architecture": TINY_ENCODER}},
    "redimnet": {"stages": REDIM_STAGES, "head_channels": 32, "embedding_norm": True},
    "redimnet2_b0": {"channels": 8, "stages": REDIM2_STAGES, "dual_aggregation": True},
    "redimnet2_b4": {"channels": 8, "stages": REDIM2_STAGES},
    "redimnet2_b5": {"channels": 8, "stages": REDIM2_STAGES},
    "redimnet2_b6": {"channels": 8, "stages": REDIM2_STAGES},
    "redimnet_b0": {"stages": [{**stage, "reduction": 30} for stage in REDIM_STAGES]},
    "redimnet_b1": {"stages": [{**stage, "reduction": 36} for stage in REDIM_STAGES]},
    "redimnet_b2": {"stages": REDIM_STAGES},
    "redimnet_b2_mrl": {"stages": REDIM_STAGES, "head_channels": 64},
    "redimnet_b3": {"stages": REDIM_STAGES},
    "redimnet_b4": {"channels": 16, "stages": REDIM_STAGES},
    "redimnet_b5": {"channels": 16, "stages": REDIM_STAGES},
    "redimnet_b6": {"stages": REDIM_STAGES},
    "lstm_autoencoder": {"hidden_size": 32, "latent_size": 16, "lstm_size": 24},
    "mlp_mixer": {"num_blocks": 2, "channels": 64},
    "mlp_mixer_raw": {"num_blocks": 2, "channels": 64},
    "mlp_mixer_small": {"num_blocks": 2, "channels": 64},
    "nested": {"num_levels": 3},
    "nested_original": {"num_levels": 3},
    "nested_report004": {"num_levels": 3},
    "resnetse101": {"num_blocks": [1, 1, 2, 1], "channels": 4},
    "resnetse152": {"num_blocks": [1, 2, 1, 1], "channels": 4},
    "resnetse34": {"num_blocks": [1, 1, 1, 1], "channels": 8, "reduction": 2},
    "resnetse50": {"num_blocks": [1, 1, 1, 1], "channels": 4},
    "ecapa_1024": {"channels": 128, "aggregated_channels": 96, "variant": "speechbrain"},
    "ecapa_512": {"channels": 64, "aggregated_channels": 96},
    "rawnet2": {"gru_size": 64},
    "rawnet3": {"channels": 64},
    "res2net50_cm": {"num_blocks": [1, 2, 1, 1], "channels": 8},
    "se_res2net50_cm": {"num_blocks": [1, 2, 1, 1], "channels": 8},
    "resnetse34v2": {"features": {"num_mels": 16}},
    "se_resnet": {"channels": [16, 16, 32, 32]},
    "se_resnet_deep": {"channels": [16, 16, 32, 32]},
    "cam_plus_plus": {"num_layers": [1, 2, 1], "segment_frames": 10},
    "conformer_cm": {"num_blocks": 2, "embedding_size": 24},
    "resnet18_wespeaker": {"num_blocks": [1, 1, 1, 1], "channels": 8},
    "resnet34_wespeaker": {"num_blocks": [1, 2, 1, 1], "channels": 8},
    "resnet50_wespeaker": {"num_blocks": [1, 1, 1, 1], "channels": 4},
    "resnet101_wespeaker": {"num_blocks": [1, 1, 1, 2], "channels": 4},
    "resnet152_wespeaker": {"num_blocks": [1, 1, 2, 1], "channels": 4},
    "resnet221_wespeaker": {"num_blocks": [1, 2, 1, 1], "channels": 4},
    "resnet293_wespeaker": {"num_blocks": [2, 1, 1, 1], "channels": 4},
}
SAMPLES = 6_000
# clips of more than one frame at the pooling: attention over a single frame has no gradient
LONGER = {"vggvox": 16_000}

no_transformers = pytest.mark.skipif(
    find_spec("transformers") is None or find_spec("peft") is None, reason="needs the extra 'ssl'"
)
every_model = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=no_transformers) if name.startswith("ssl_") else name
        for name in MODELS.names()
    ],
)


@cache
def made(name: str) -> tuple[Model, dict[str, Tensor]]:
    """The model at the options of these tests, and its initial tensors."""
    model = create_model(name, seed=0, **SMALLER.get(name, {}))
    return model, {key: value.clone() for key, value in model.state_dict().items()}


def built(name: str) -> Model:
    return made(name)[0]


def model_of(name: str, training: bool) -> Model:
    model, initial = made(name)
    model.load_state_dict(initial)
    model.zero_grad()
    return model.train(training)


def noise(batch: int, samples: int) -> Tensor:
    rng = generator(7, "contract", samples)
    return torch.from_numpy(rng.standard_normal((batch, samples)).astype(np.float32) * 0.1)


def parts(output: Tensor | SpoofOutput) -> list[Tensor]:
    return list(output) if isinstance(output, tuple) else [output]


def forward(model: Model, wave: Tensor) -> list[Tensor]:
    return parts(model(wave, **model.draw(generator(0, "draw"))))
