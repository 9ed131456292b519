"""The graph layers against the textbook form with a (B, N, N, D) tensor of pairs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from glottis.models.parts.graph import (
    GraphAttention,
    GraphPool,
    HeterogeneousGraphAttention,
    normalise_nodes,
)


def pair_tensor(x: Tensor) -> Tensor:
    return x[:, :, None] * x[:, None]


def plain_attention(layer: GraphAttention, x: Tensor) -> Tensor:
    scores = torch.tanh(layer.pair_projection(pair_tensor(x))) @ layer.pair_weight
    attention = torch.softmax(scores / layer.temperature, dim=-2).squeeze(-1)
    y = layer.neighbour_projection(attention @ x) + layer.node_projection(x)
    return functional.selu(normalise_nodes(layer.norm, y))


def plain_heterogeneous(
    layer: HeterogeneousGraphAttention, temporal: Tensor, spectral: Tensor, master: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    n = temporal.shape[1]
    x = torch.cat([layer.temporal_projection(temporal), layer.spectral_projection(spectral)], 1)
    hidden = torch.tanh(layer.pair_projection(pair_tensor(x)))
    scores = torch.empty(hidden.shape[:3], dtype=x.dtype)
    scores[:, :n, :n] = (hidden[:, :n, :n] @ layer.pair_weight_temporal)[..., 0]
    scores[:, n:, n:] = (hidden[:, n:, n:] @ layer.pair_weight_spectral)[..., 0]
    scores[:, :n, n:] = (hidden[:, :n, n:] @ layer.pair_weight_cross)[..., 0]
    scores[:, n:, :n] = (hidden[:, n:, :n] @ layer.pair_weight_cross)[..., 0]
    attention = torch.softmax(scores / layer.temperature, dim=-1)
    y = layer.neighbour_projection(attention @ x) + layer.node_projection(x)
    y = functional.selu(normalise_nodes(layer.norm, y))
    to_master = torch.tanh(layer.master_pair_projection(x * master)) @ layer.master_weight
    heard = (torch.softmax(to_master / layer.temperature, dim=1) * x).sum(1, keepdim=True)
    new = layer.master_neighbour_projection(heard) + layer.master_self_projection(master)
    return y[:, :n], y[:, n:], new


def gradients(outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    weighted = sum(
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum() for output in outputs
    )
    return [g for g in torch.autograd.grad(weighted, inputs, allow_unused=True) if g is not None]


@pytest.mark.parametrize("nodes", [1, 2, 7, 23])
def test_packed_attention_equals_the_pair_tensor(nodes: int) -> None:
    layer = GraphAttention(12, 8, temperature=2.0, dropout=0.0).double()
    x = torch.randn(3, nodes, 12, dtype=torch.float64, requires_grad=True)
    inputs = [x, *layer.parameters()]
    ours, plain = layer(x), plain_attention(layer, x)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients([ours], inputs), gradients([plain], inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("temporal", "spectral"), [(1, 1), (5, 3), (3, 8)])
def test_packed_heterogeneous_attention_equals_the_pair_tensor(
    temporal: int, spectral: int
) -> None:
    layer = HeterogeneousGraphAttention(10, 6, temperature=0.7, dropout=0.0).double()
    nodes = [
        torch.randn(4, count, 10, dtype=torch.float64, requires_grad=True)
        for count in (temporal, spectral, 1)
    ]
    inputs = [*nodes, *layer.parameters()]
    ours, plain = layer(*nodes), plain_heterogeneous(layer, *nodes)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients([*ours], inputs), gradients([*plain], inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_no_tensor_of_all_pairs_is_made() -> None:
    layer = GraphAttention(16, 16, temperature=2.0, dropout=0.0)
    batch, nodes = 2, 40
    saved: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(torch.randn(batch, nodes, 16, requires_grad=True))
    assert max(saved) == batch * nodes * (nodes + 1) // 2 * 16  # half of (B, N, N, D)


def test_pool_keeps_the_best_nodes_in_descending_order() -> None:
    pool = GraphPool(4, ratio=0.5, dropout=0.0).eval()
    x = torch.randn(3, 11, 4)
    y = pool(x)
    assert y.shape == (3, 5, 4)  # int(11 * 0.5)
    scores = torch.sigmoid(pool.score(x))[..., 0]
    for item in range(3):
        order = scores[item].argsort(descending=True)[:5]
        expected = x[item, order] * scores[item, order, None]
        torch.testing.assert_close(y[item], expected)


def test_pool_keeps_at_least_one_node() -> None:
    assert GraphPool(4, ratio=0.1, dropout=0.0)(torch.randn(2, 3, 4)).shape == (2, 1, 4)
