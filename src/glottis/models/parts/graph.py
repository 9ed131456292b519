"""Graph attention over a fully connected graph, without the (B, N, N, D) tensor of pairs.

Jung et al., "AASIST: audio anti-spoofing using integrated spectro-temporal graph attention
networks", ICASSP 2022.  The weight between two nodes depends on their element-wise product, hence
w . tanh(W (x_i * x_j) + b) is the same for (i, j) and (j, i): only the N (N + 1) / 2 pairs with
i <= j are computed, and each feeds both entries of the map.  This is exact, gradients included,
and halves the work and the memory.

Shapes: B batch, N nodes, D size of a node, K size of a node after the layer, P pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def pair_scores(x: Tensor, projection: nn.Linear, weight: Tensor) -> tuple[Tensor, Tensor]:
    """tanh(projection(x_i * x_j)) @ weight for the pairs i <= j.

    x: (B, N, D); weight: (K, R) for R kinds of score.  Returns the scores (B, P, R), and for every
    (i, j) the position of its pair (N, N).
    """
    num_nodes = x.shape[1]
    first, second = torch.triu_indices(num_nodes, num_nodes, device=x.device).unbind()
    node = torch.arange(num_nodes, device=x.device)
    low = torch.minimum(node[:, None], node[None, :])
    high = torch.maximum(node[:, None], node[None, :])
    position = low * (2 * num_nodes - low - 1) // 2 + high
    pairs = x.index_select(1, first) * x.index_select(1, second)
    return torch.tanh(projection(pairs)) @ weight, position


def spread(packed: Tensor, position: Tensor) -> Tensor:
    """Scores of pairs (B, P) -> the symmetric map (B, N, N)."""
    return packed.index_select(1, position.flatten()).unflatten(1, position.shape)


def attention_weight(size: int) -> nn.Parameter:
    """A (size, 1) weight vector, Xavier normal."""
    weight = nn.Parameter(torch.empty(size, 1))
    nn.init.xavier_normal_(weight)
    return weight


def normalise_nodes(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch normalisation of (B, N, K) over all nodes of the batch."""
    return norm(x.flatten(0, 1)).view_as(x)


class GraphAttention(nn.Module):
    """Homogeneous graph attention: (B, N, D) -> (B, N, K).

    A = softmax_j(w . tanh(W (x_i * x_j) + b) / temperature); output SELU(BN(W1 A x + W2 x + b)).
    """

    def __init__(self, size: int, output_size: int, temperature: float, dropout: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.pair_weight = attention_weight(output_size)
        self.pair_projection = nn.Linear(size, output_size)
        self.neighbour_projection = nn.Linear(size, output_size)
        self.node_projection = nn.Linear(size, output_size)
        self.norm = nn.BatchNorm1d(output_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(x)
        scores, position = pair_scores(x, self.pair_projection, self.pair_weight)
        attention = torch.softmax(spread(scores[..., 0], position) / self.temperature, dim=-1)
        y = self.neighbour_projection(attention @ x) + self.node_projection(x)
        return functional.selu(normalise_nodes(self.norm, y))


class HeterogeneousGraphAttention(nn.Module):
    """Attention over temporal and spectral nodes together, with a master node (a stack node).

    temporal (B, N1, D), spectral (B, N2, D), master (B or 1, 1, D) -> the same with size K.  Both
    kinds are first projected into one space; the pair score uses its own weight vector within the
    temporal nodes, within the spectral nodes, and across.
    """

    def __init__(self, size: int, output_size: int, temperature: float, dropout: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.temporal_projection = nn.Linear(size, size)
        self.spectral_projection = nn.Linear(size, size)
        self.pair_projection = nn.Linear(size, output_size)
        self.pair_weight_temporal = attention_weight(output_size)
        self.pair_weight_cross = attention_weight(output_size)
        self.pair_weight_spectral = attention_weight(output_size)
        self.neighbour_projection = nn.Linear(size, output_size)
        self.node_projection = nn.Linear(size, output_size)
        self.master_pair_projection = nn.Linear(size, output_size)
        self.master_weight = attention_weight(output_size)
        self.master_neighbour_projection = nn.Linear(size, output_size)
        self.master_self_projection = nn.Linear(size, output_size)
        self.norm = nn.BatchNorm1d(output_size)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, temporal: Tensor, spectral: Tensor, master: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        num_temporal = temporal.shape[1]
        x = torch.cat([self.temporal_projection(temporal), self.spectral_projection(spectral)], 1)
        x = self.dropout(x)
        attention = torch.softmax(self._pair_map(x, num_temporal) / self.temperature, dim=-1)
        y = self.neighbour_projection(attention @ x) + self.node_projection(x)
        y = functional.selu(normalise_nodes(self.norm, y))
        return y[:, :num_temporal], y[:, num_temporal:], self._update(x, master)

    def _pair_map(self, x: Tensor, num_temporal: int) -> Tensor:
        """Scores of all pairs of (B, N1 + N2, D) nodes, the temporal ones first -> (B, N, N)."""
        weight = torch.cat(
            [self.pair_weight_temporal, self.pair_weight_cross, self.pair_weight_spectral], dim=1
        )
        scores, position = pair_scores(x, self.pair_projection, weight)  # (B, P, 3)
        is_spectral = (torch.arange(x.shape[1], device=x.device) >= num_temporal).long()
        kind = is_spectral[:, None] + is_spectral[None, :]  # 0 temporal, 1 across, 2 spectral
        return spread(scores.flatten(1), 3 * position + kind)

    def _update(self, x: Tensor, master: Tensor) -> Tensor:
        """The master node after it has listened to all nodes x (B, N, D) -> (B, 1, K)."""
        scores = torch.tanh(self.master_pair_projection(x * master)) @ self.master_weight
        attention = torch.softmax(scores / self.temperature, dim=1)  # (B, N, 1)
        heard = attention.transpose(1, 2) @ x
        return self.master_neighbour_projection(heard) + self.master_self_projection(master)


class GraphPool(nn.Module):
    """Keep the best int(N ratio) nodes, at least one: (B, N, D) -> (B, int(N ratio), D).

    The score sigmoid(w . x + b) multiplies its node, and the nodes leave in descending order of
    score (Gao and Ji, "Graph U-Nets", ICML 2019): the order is part of the result, because two
    branches are later compared rank by rank.
    """

    def __init__(self, size: int, ratio: float, dropout: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.score = nn.Linear(size, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.sigmoid(self.score(self.dropout(x)))  # (B, N, 1)
        num_kept = max(int(x.shape[1] * self.ratio), 1)
        order = scores.topk(num_kept, dim=1).indices
        return (x * scores).gather(1, order.expand(-1, -1, x.shape[2]))
