"""The same mathematics written the usual way, on the weights of our networks, to compare with.

Plain means: every layer one call, channels first, the whole (B, N, N, D) tensor of node pairs, the
dead batch norm computed and thrown away, pools with indices, a stride-1 filterbank of 70 filters.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from glottis.models.parts.sinc import sinc_filters


def plain_aasist(network: Any, wave: Tensor, filters: Tensor) -> Tensor:
    """Logits (B, 2) of an `Aasist` network, from (B, S); ``filters`` from `aasist_filters`."""
    bands = functional.conv1d(wave[:, None], filters)
    x = functional.max_pool2d(bands[:, None].abs(), (3, 3))
    x = functional.selu(network.input_norm(x))
    for block in network.encoder:
        x = _plain_block(block, x)
    magnitude = x.abs()
    spectral = magnitude.max(dim=3).values.transpose(1, 2) + network.position
    temporal = magnitude.max(dim=2).values.transpose(1, 2)
    spectral = _plain_pool(
        network.spectral_pool, _plain_attention(network.spectral_attention, spectral)
    )
    temporal = _plain_pool(
        network.temporal_pool, _plain_attention(network.temporal_attention, temporal)
    )
    branches = [_plain_branch(branch, temporal, spectral) for branch in network.branches]
    temporal, spectral, master = (torch.max(a, b) for a, b in zip(*branches, strict=True))
    embedding = torch.cat(
        [
            temporal.abs().max(dim=1).values,
            temporal.mean(dim=1),
            spectral.abs().max(dim=1).values,
            spectral.mean(dim=1),
            master.squeeze(1),
        ],
        dim=1,
    )
    return network.classifier(network.dropout(embedding))


def aasist_filters(network: Any) -> Tensor:
    """All filters, (num_filters, 1, taps)."""
    taps = network.envelope.kernels.shape[-1] - 2
    return sinc_filters(network.num_filters, taps, network.sample_rate)[:, None]


def _plain_block(block: Any, x: Tensor) -> Tensor:
    if hasattr(block, "dead_norm"):
        functional.selu(block.dead_norm(x))  # as published: the result is not used
    y = functional.selu(block.norm(block.conv1(x)))
    y = block.conv2(y)
    return functional.max_pool2d(y + (x if block.shortcut is None else block.shortcut(x)), (1, 3))


def _pairs(x: Tensor) -> Tensor:
    """(B, N, D) -> (B, N, N, D)."""
    num_nodes = x.shape[1]
    expanded = x.unsqueeze(2).expand(-1, -1, num_nodes, -1)
    return expanded * expanded.transpose(1, 2)


def _output(layer: Any, x: Tensor, scores: Tensor) -> Tensor:
    attention = torch.softmax(scores / layer.temperature, dim=-2).squeeze(-1)
    y = layer.neighbour_projection(attention @ x) + layer.node_projection(x)
    return functional.selu(layer.norm(y.flatten(0, 1)).view_as(y))


def _plain_attention(layer: Any, x: Tensor) -> Tensor:
    x = layer.dropout(x)
    return _output(layer, x, torch.tanh(layer.pair_projection(_pairs(x))) @ layer.pair_weight)


def _plain_heterogeneous(
    layer: Any, temporal: Tensor, spectral: Tensor, master: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    n = temporal.shape[1]
    x = torch.cat([layer.temporal_projection(temporal), layer.spectral_projection(spectral)], 1)
    x = layer.dropout(x)
    hidden = torch.tanh(layer.pair_projection(_pairs(x)))
    scores = torch.zeros_like(hidden[..., :1])
    scores[:, :n, :n] = hidden[:, :n, :n] @ layer.pair_weight_temporal
    scores[:, n:, n:] = hidden[:, n:, n:] @ layer.pair_weight_spectral
    scores[:, :n, n:] = hidden[:, :n, n:] @ layer.pair_weight_cross
    scores[:, n:, :n] = hidden[:, n:, :n] @ layer.pair_weight_cross
    y = _output(layer, x, scores)
    to_master = torch.tanh(layer.master_pair_projection(x * master)) @ layer.master_weight
    attention = torch.softmax(to_master / layer.temperature, dim=-2)
    heard = attention.transpose(1, 2) @ x
    new = layer.master_neighbour_projection(heard) + layer.master_self_projection(master)
    return y[:, :n], y[:, n:], new


def _plain_pool(pool: Any, x: Tensor) -> Tensor:
    scores = torch.sigmoid(pool.score(pool.dropout(x)))
    order = torch.topk(scores, max(int(x.shape[1] * pool.ratio), 1), dim=1).indices
    return torch.gather(x * scores, 1, order.expand(-1, -1, x.shape[2]))


def _plain_branch(branch: Any, temporal: Tensor, spectral: Tensor) -> list[Tensor]:
    temporal, spectral, master = _plain_heterogeneous(
        branch.first, temporal, spectral, branch.master
    )
    temporal = _plain_pool(branch.temporal_pool, temporal)
    spectral = _plain_pool(branch.spectral_pool, spectral)
    more = _plain_heterogeneous(branch.second, temporal, spectral, master)
    pairs = zip((temporal, spectral, master), more, strict=True)
    return [branch.dropout(a + b) for a, b in pairs]


def plain_features(wave: Tensor, mel: Tensor, window: Tensor) -> Tensor:
    """Normalised log-mel features (B, F, T); ``mel`` (F, 257), ``window`` (400,)."""
    with torch.no_grad():
        spectrum = torch.stft(wave, 512, 160, 400, window=window, return_complex=True)
        return functional.instance_norm(((mel @ spectrum.abs() ** 2) + 1e-6).log())


def mel_filters(num_mels: int) -> Tensor:
    """Triangles between 0 and 8 kHz, equally spaced in mel, on 257 bins: (F, 257) float32."""
    hz = torch.linspace(0, 8000, 257, dtype=torch.float64)
    top = 2595 * math.log10(1 + 8000 / 700)
    corners = torch.linspace(0, top, num_mels + 2, dtype=torch.float64)
    corners = 700 * (10 ** (corners / 2595) - 1)
    widths = corners.diff()
    slopes = corners[:, None] - hz
    rising, falling = -slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None]
    return torch.minimum(rising, falling).clamp_min(0).float()


def plain_resnetse34l(network: Any, features: Tensor) -> Tensor:
    """Embeddings (B, D) of a `ResNetSE34L` from its features (B, F, T)."""
    x = functional.relu(network.stem_norm(network.stem(features[:, None])))
    for stage in network.stages:
        for block in stage:
            y = block.norm1(functional.relu(block.conv1(x)))
            y = block.norm2(block.conv2(y))
            gate = functional.adaptive_avg_pool2d(y, 1).flatten(1)
            gate = torch.sigmoid(block.se.expand(functional.relu(block.se.reduce(gate))))
            y = y * gate[:, :, None, None]
            x = functional.relu(y + (x if block.shortcut is None else block.shortcut(x)))
    x = x.mean(dim=2).transpose(1, 2)  # (B, T, C)
    frames = network.pooling.frames
    weights = torch.softmax(torch.tanh(frames.linear(x)) @ frames.attention, dim=1)
    return network.embedding((x * weights).sum(dim=1))
