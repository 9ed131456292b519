"""AASIST and factorised pooling behind self-supervised networks, against their mathematics.

Shapes: B batch, S samples, T frames, F bands, C channels, L layers, H heads, R compressed size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glottis.models import create_model
from glottis.models.parts.mhfa import FactorisedPooling
from glottis.rng import generator
from helpers.tiny_ssl import architecture, needs_ssl

XLS_R_300M: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}


def states(layers: int, batch: int, frames: int, size: int) -> list[Tensor]:
    rng = generator(5, "states", frames)
    values = rng.standard_normal((layers, batch, frames, size)).astype(np.float32)
    return list(torch.from_numpy(values))


def test_factorised_pooling_is_the_formula() -> None:
    """With the offsets of the public code, which the softmax over the frames takes away."""
    torch.manual_seed(0)
    pool = FactorisedPooling(6, 3, heads=2, compressed=4, embedding_size=5)
    with torch.no_grad():
        pool.key_layers.weight.copy_(torch.tensor([0.3, -1.0, 0.5]))
        pool.value_layers.weight.copy_(torch.tensor([1.0, 0.0, -0.7]))
    layers = states(3, 2, 7, 6)
    key_offset, score_offset = torch.randn(4), torch.randn(2)

    def share(weight: Tensor, layer: int) -> float:
        exponents = [math.exp(w) for w in weight.tolist()]
        return exponents[layer] / sum(exponents)

    expected = []
    for item in range(2):
        keys, values = [], []
        for frame in range(7):
            k = sum(share(pool.key_layers.weight, n) * layers[n][item, frame] for n in range(3))
            v = sum(share(pool.value_layers.weight, n) * layers[n][item, frame] for n in range(3))
            keys.append(pool.key.weight @ k + key_offset)
            values.append(pool.value.weight @ v + pool.value.bias)
        heard = []
        for head in range(2):
            scores = [(pool.query.weight[head] @ k + score_offset[head]).item() for k in keys]
            total = sum(math.exp(s) for s in scores)
            heard.append(sum(math.exp(s) / total * v for s, v in zip(scores, values, strict=True)))
        expected.append(pool.embedding.weight @ torch.cat(heard) + pool.embedding.bias)
    torch.testing.assert_close(pool(layers), torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_factorised_pooling_leaves_autocast() -> None:
    pool = FactorisedPooling(6, 3, heads=2, compressed=4, embedding_size=5)
    layers = states(3, 2, 7, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = pool([layer.bfloat16() for layer in layers])
    assert output.dtype == torch.float32


@needs_ssl
def test_the_nodes_are_weighted_sums_over_frames_and_bands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every step of the map written out: pool, norm, blocks, attention, the two kinds of node."""
    model = create_model(
        "ssl_aasist", seed=2, encoder={"architecture": architecture("wav2vec2")}, num_bands=12
    ).eval()
    network: Any = model.network
    seen: list[Tensor] = []
    judge = network.judge
    monkeypatch.setattr(network, "judge", lambda *nodes: (seen.extend(nodes), judge(*nodes))[1])
    rng = generator(1, "wave")
    wave = torch.from_numpy(rng.standard_normal((2, 4000)).astype(np.float32) * 0.1)
    with torch.no_grad():
        model(wave)
        frames = network.encoder(wave)  # (B, C, T)
        x = torch.einsum("fc,bct->bft", network.projection.weight, frames)
        x = x + network.projection.bias[:, None]
        bands, times = 12 // 3, frames.shape[2] // 3
        x = x[:, :, : 3 * times].reshape(2, bands, 3, times, 3).amax(dim=(2, 4))[:, None]
        x = torch.selu(network.input_norm(x))
        for block in network.blocks:
            y = torch.selu(block.norm(block.conv1(x)))
            x = block.conv2(y) + (x if block.shortcut is None else block.shortcut(x))
        x = torch.selu(network.output_norm(x))
        assert x.shape[2:] == (bands, times)
        scores = network.attention(x)
        over_time = scores.exp() / scores.exp().sum(dim=3, keepdim=True)
        over_bands = scores.exp() / scores.exp().sum(dim=2, keepdim=True)
        spectral = torch.einsum("bcft,bcft->bfc", x, over_time)
        temporal = torch.einsum("bcft,bcft->btc", x, over_bands)
    torch.testing.assert_close(seen[0], spectral, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[1], temporal, rtol=1e-4, atol=1e-5)
    assert network.position.shape == (1, bands, 64)


@needs_ssl
def test_the_countermeasure_has_the_published_parameters() -> None:
    """317,837,800 in the model card of SpeechAntiSpoofingBenchmarks/W2V2-AASIST, a number in
    millions with four decimals: XLS-R 300M with its pretraining heads, and AASIST with the batch
    norms of blocks 1-5 that it does not use."""
    import transformers

    with torch.device("meta"):
        model = create_model("ssl_aasist", encoder={"architecture": XLS_R_300M, "layers": "last"})
        whole = transformers.Wav2Vec2ForPreTraining(
            transformers.Wav2Vec2Config(**XLS_R_300M, codevector_dim=768, proj_codevector_dim=768)
        )
    named = list(model.named_parameters())
    back_end = sum(p.numel() for name, p in named if ".backbone." not in name)
    assert back_end == 446_730
    unused_norms = 2 * (32 + 32 + 64 + 64 + 64)
    pretraining = sum(p.numel() for p in whole.parameters())
    assert f"{(pretraining + back_end + unused_norms) / 1e6:.4f}" == "317.8378"
