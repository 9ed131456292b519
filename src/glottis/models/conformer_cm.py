"""Conformer countermeasure: a class token in front of the frames, four conformer blocks.

Rosello, Gomez-Alanis, Gomez and Peinado, "A conformer-based classifier for variable-length
utterance processing in anti-spoofing", Interspeech 2023, in the sizes of the authors' released code
(4 blocks, 4 heads, 144 channels, 31 frames).  Blocks: `parts/conformer.py`.

The paper feeds it with wav2vec 2.0 features, 1024 values every 20 ms.  The network takes any
features (B, F, T); the default front end is ours: 60 LFCC of 25 ms every 20 ms, the same frame
rate.  No size is published for the classifier alone, so the count is ours.

Worth knowing:
- features first go through a linear layer and a batch norm with one mean and one deviation for the
  whole map, then SELU; nothing is added for absolute positions;
- the embedding is the token's value behind the last block: no pooling over time;
- there is no dropout in the released code; ``dropout`` adds it in every branch of a block.

What differs from the released code, none of it in the result: see `parts/conformer.py`; in eval
mode a batch norm is part of the convolution before it; the first batch norm and the classifier are
float32 under autocast; and a batch may be padded, with ``lengths``.

Initialisation: class token uniform in [0, 1), position vectors standard normal, the rest as torch
does.  Shapes: B batch, F features, T frames, D embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.errors import ModelError
from glottis.models._interface import SpoofOutput, require_features
from glottis.models._parity import ours
from glottis.models._registry import register_model
from glottis.models.parts.conformer import ConformerBlock
from glottis.models.parts.pooling import real
from glottis.models.parts.precision import at_least_float32, no_autocast


class ConformerCmConfig(Config):
    """Options of the conformer countermeasure; the defaults have 2,367,508 parameters."""

    embedding_size: int = Field(144, ge=1)
    """D, channels of the blocks and values of an embedding"""
    num_blocks: int = Field(4, ge=1)
    """conformer blocks"""
    heads: int = Field(4, ge=1)
    """heads of the attention, a divisor of D"""
    kernel_size: int = Field(31, ge=3)
    """frames that the convolution over time sees, odd"""
    expansion: int = Field(4, ge=1)
    """hidden units of a feed-forward over D"""
    conv_expansion: int = Field(2, ge=1)
    """channels of the convolution over D"""
    max_distance: int = Field(512, ge=1)
    """frames beyond which the attention does not tell distances apart"""
    dropout: float = Field(0.0, ge=0, lt=1)
    """in every branch of a block"""


@register_model(
    "conformer_cm",
    ConformerCmConfig,
    parity=ours("no count is published without the self-supervised network; front end ours"),
)
class ConformerCm(nn.Module):
    """(B, F, T) features -> embedding (B, D) and logits (B, 2); T >= 1 frame.

    Rosello et al., Interspeech 2023.  It hears whole utterances.
    """

    reference = "Rosello et al., Interspeech 2023"
    task = "spoof"
    input = "features"
    min_frames = 1
    window_seconds = None
    unused_parameters = ()
    heavy_blocks = ("blocks",)
    default_features: dict[str, Any] = {  # noqa: RUF012
        "name": "lfcc",
        "window_samples": 400,
        "hop_samples": 320,
        "fft_size": 512,
        "num_filters": 20,
        "num_coefficients": 20,
        "delta_orders": 2,
    }

    def __init__(self, config: ConformerCmConfig, num_features: int) -> None:
        super().__init__()
        if config.embedding_size % config.heads:
            raise ModelError(
                f"embedding_size={config.embedding_size} cannot be split into {config.heads} heads",
                fix="use a multiple of heads",
            )
        if config.kernel_size % 2 == 0:
            raise ModelError(f"kernel_size={config.kernel_size} is even", fix="use an odd number")
        self.num_features = num_features
        size = self.embedding_size = config.embedding_size
        self.project = nn.Linear(num_features, size)
        self.norm = nn.BatchNorm2d(1)
        self.class_token = nn.Parameter(torch.rand(1, 1, size))
        self.blocks = nn.ModuleList(
            ConformerBlock(
                size,
                heads=config.heads,
                expansion=config.expansion,
                conv_expansion=config.conv_expansion,
                kernel=config.kernel_size,
                max_distance=config.max_distance,
                dropout=config.dropout,
            )
            for _ in range(config.num_blocks)
        )
        self.classifier = nn.Linear(size, 2)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> SpoofOutput:
        """lengths: (B,), the frames of each item that are real; None means all."""
        require_features(features, self.num_features, self.min_frames)
        x = self.project(real(features, lengths).transpose(1, 2))  # (B, T, D)
        with no_autocast(x):
            x = functional.selu(self.norm(at_least_float32(x)[:, None])[:, 0], inplace=True)
        x = torch.cat([self.class_token.expand(len(x), -1, -1).to(x), x], dim=1)  # (B, 1 + T, D)
        mask: Tensor | None = None
        if lengths is not None:
            places = torch.arange(x.shape[1], device=x.device)
            mask = places <= lengths.to(x.device)[:, None]
        for block in self.blocks:
            x = block(x, mask)
        with no_autocast(x):
            embedding = at_least_float32(x[:, 0])
            return SpoofOutput(embedding, self.classifier(embedding))
