"""Cepstra of a logarithmic filterbank: what LFCC and MFCC share.

Shapes: B batch, S samples, T frames, C coefficients.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from glottis.features._filters import cosine_matrix
from glottis.features._frontend import FrontEnd
from glottis.features._spectrum import LogFilterbank, SpectrumConfig, table


class Cepstra(FrontEnd):
    """(B, S) -> (B, num_coefficients * (delta_orders + 1), T): bank, orthonormal DCT-II, deltas."""

    cosines: Tensor

    def __init__(
        self,
        config: SpectrumConfig,
        bank: LogFilterbank,
        num_coefficients: int,
        delta_orders: int,
    ) -> None:
        super().__init__(config, num_coefficients * (delta_orders + 1), config.window_samples)
        self.bank = bank
        cosines = cosine_matrix(num_coefficients, len(bank.filters))
        self.register_buffer("cosines", table(cosines), persistent=False)
        self.delta_orders = delta_orders

    def compute(self, wave: Tensor) -> Tensor:
        """(B, S) -> (B, F, T)."""
        static = torch.matmul(self.cosines, self.bank(wave))
        return with_deltas(static, self.delta_orders)


def deltas(values: Tensor) -> Tensor:
    """x[t+1] - x[t-1] over the last axis with repeated edges, as in the ASVspoof baselines."""
    edges = functional.pad(values, (1, 1), mode="replicate")
    return edges[..., 2:] - edges[..., :-2]


def with_deltas(values: Tensor, orders: int) -> Tensor:
    """(B, C, T) -> (B, C * (orders + 1), T): values, deltas, deltas of deltas ..."""
    parts = [values]
    for _ in range(orders):
        parts.append(deltas(parts[-1]))
    return torch.cat(parts, dim=1) if orders else values
