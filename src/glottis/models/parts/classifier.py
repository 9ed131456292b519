"""Last layers of a countermeasure: log probabilities, and cosines for losses that ask for them.

Zhang, Jiang and Duan, "One-class learning towards synthetic voice spoofing detection", IEEE SPL
2021 (arXiv 2010.13995): one learned direction, that of bona fide speech.  Wang and Yamagishi,
Interspeech 2021 (arXiv 2103.11326), section 2.3: one direction per class.
Initialisation: Kaiming uniform with slope 0.25, as the published OC-softmax; only the direction
counts.  Shapes: B batch, D embedding.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.models.parts.precision import no_autocast

Kind = Literal["linear", "one_class", "cosine"]
"""the network's own classifier, one direction, one direction per class"""


class LogOdds(nn.Linear):
    """(B, D) -> (B, 2): a linear layer and the logarithms of its two class probabilities."""

    def forward(self, x: Tensor) -> Tensor:
        spoof, bona_fide = super().forward(x).unbind(dim=1)
        return functional.logsigmoid(torch.stack([spoof - bona_fide, bona_fide - spoof], dim=1))


class CosineClassifier(nn.Module):
    """(B, D) embeddings -> (B, 2) cosines in float32, spoof and bona fide.

    one_class: -c and c of the cosine c with one direction.  cosine: with one direction per class.
    An embedding shorter than 1e-6 counts as that long.
    """

    def __init__(self, embedding_size: int, kind: Literal["one_class", "cosine"]) -> None:
        super().__init__()
        count = 1 if kind == "one_class" else 2
        self.directions = nn.Parameter(torch.empty(count, embedding_size))
        nn.init.kaiming_uniform_(self.directions, 0.25)

    def forward(self, embedding: Tensor) -> Tensor:
        with no_autocast(embedding):
            unit = functional.normalize(embedding.float(), dim=1, eps=1e-6)
            towards = functional.normalize(self.directions.float(), dim=1, eps=1e-6)
            cosine = functional.linear(unit, towards)
            return torch.cat([-cosine, cosine], dim=1) if cosine.shape[1] == 1 else cosine
