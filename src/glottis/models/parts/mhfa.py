"""Multi-head factorised attentive pooling (MHFA): where to listen, and what to take from there.

Peng et al., "An attention-based backend allowing efficient fine-tuning of transformer models for
speaker verification", SLT 2022 (arXiv 2210.01273), section 3.  Keys K and values V are two weighted
sums over the layers of a transformer, both made smaller by a linear layer.  Head h looks at the
frames with the weights softmax over t of K_t . q_h and gives the weighted mean of V; the heads
share the values, and a linear layer makes the embedding of all of them.

The public code also has offsets of the keys and of the scores.  The softmax over the frames takes
both away: they are left out, without a change of the result.

Shapes: B batch, T frames, C size of a layer, L layers, R compressed size, H heads, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glottis.models.parts.precision import no_autocast
from glottis.models.parts.self_supervised import LayerSum


class FactorisedPooling(nn.Module):
    """L times (B, T, C) -> (B, D)."""

    def __init__(
        self, size: int, num_layers: int, *, heads: int, compressed: int, embedding_size: int
    ) -> None:
        super().__init__()
        self.key_layers, self.value_layers = LayerSum(num_layers), LayerSum(num_layers)
        self.key = nn.Linear(size, compressed, bias=False)
        self.value = nn.Linear(size, compressed)
        self.query = nn.Linear(compressed, heads, bias=False)
        self.embedding = nn.Linear(heads * compressed, embedding_size)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        keys, values = self.key_layers(states), self.value_layers(states)
        with no_autocast(keys):
            weights = torch.softmax(self.query(self.key(keys)), dim=1)  # (B, T, H)
            heard = weights.transpose(1, 2) @ self.value(values)  # (B, H, R)
            return self.embedding(heard.flatten(1))
