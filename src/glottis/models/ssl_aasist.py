"""AASIST behind a self-supervised network: residual encoder and graph attention over its frames.

Tak, Todisco, Wang, Jung, Yamagishi and Evans, "Automatic speaker verification spoofing and deepfake
detection using wav2vec 2.0 and data augmentation", Odyssey 2022 (arXiv 2202.12233).  There the
network is wav2vec 2.0 XLS-R with 300 million parameters, its last layer, trained as a whole, and it
hears the wave as it is, not at variance 1 as XLS-R was trained (``encoder: {weights:
facebook/wav2vec2-xls-r-300m, layers: last, trainable: full, normalise: false}``).

The frames become 128 values; the map of 128 x T is pooled 3 x 3; six blocks as in AASIST, without
its pools, make C channels.  Nodes are weighted sums, over frames and over bands, with the weights
of one small network, instead of AASIST's largest magnitudes; the graph half is AASIST's.

What differs from the published code, none of it in the result: as in `aasist.py`, and the batch
norms of blocks 1-5 whose output it throws away do not exist.  Weights published for fairseq are not
read: no reference for their names.

Initialisation: as in `aasist.py`; the self-supervised network from ``encoder.weights``, else as
transformers does.  Shapes: B batch, S samples, T frames, F bands, C channels.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.models._interface import SpoofOutput
from glottis.models._parity import ours
from glottis.models._registry import register_model
from glottis.models.aasist import GraphConfig, GraphHalf, ResidualBlock
from glottis.models.parts.precision import no_autocast
from glottis.models.parts.self_supervised import (
    EncoderConfig,
    SelfSupervisedEncoder,
    frozen_names,
    with_backbone,
)

_POOL = 3  # of bands and of frames


class SslAasistConfig(GraphConfig):
    """Options of AASIST behind a self-supervised network."""

    encoder: EncoderConfig = EncoderConfig()
    """the self-supervised network"""
    num_bands: int = Field(128, ge=_POOL)
    """values that a frame is projected to, before the pool"""
    attention_size: int = Field(128, ge=1)
    """hidden channels of the network that weighs frames and bands"""
    channels: tuple[int, int] = (32, 64)
    """channels of encoder blocks 0-1, and of blocks 2-5 and the nodes"""
    pool_ratios: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """share of nodes kept: spectral, temporal, between the heterogeneous layers"""


@register_model(
    "ssl_aasist",
    SslAasistConfig,
    parity=ours("with XLS-R 300M in front it has the published 317.84M, see docs/ssl.md"),
)
class SslAasist(GraphHalf):
    """(B, S) wave at 16 kHz -> embedding (B, 5 K) and logits (B, 2); S >= 3 frames of 20 ms.

    Tak et al., Odyssey 2022.  A temporal node is 60 ms; the published scores come from the first
    64,600 samples (4.04 s).
    """

    reference = "Tak et al., Odyssey 2022"
    task = "spoof"
    input = "wave"
    default_features = None
    sample_rate = 16000
    window_seconds = 64600 / 16000
    unused_parameters: tuple[str, ...] = ()
    heavy_blocks = ("encoder.backbone.network.encoder.layers", "blocks")

    def __init__(self, config: SslAasistConfig) -> None:
        super().__init__()
        narrow, wide = config.channels
        self.encoder = SelfSupervisedEncoder(config.encoder)
        self.resolved_config = with_backbone(config, self.encoder.backbone)
        self.min_samples = self.encoder.backbone.samples(_POOL)
        self.projection = nn.Linear(self.encoder.size, config.num_bands)
        self.input_norm = nn.BatchNorm2d(1)
        widths = [1, narrow, narrow, wide, wide, wide, wide]
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(widths[i], widths[i + 1], dead_norm=False, pool=False)
                for i in range(6)
            )
        )
        self.output_norm = nn.BatchNorm2d(wide)
        self.attention = nn.Sequential(
            nn.Conv2d(wide, config.attention_size, 1),
            nn.SELU(inplace=True),
            nn.BatchNorm2d(config.attention_size),
            nn.Conv2d(config.attention_size, wide, 1),
        )
        self.build_graph(config, config.num_bands // _POOL)
        self.unused_parameters = frozen_names(self)

    def forward(self, wave: Tensor) -> SpoofOutput:
        x = self.projection(self.encoder(wave).transpose(1, 2))  # (B, T, F)
        x = functional.max_pool2d(x.transpose(1, 2)[:, None], _POOL)
        x = self.blocks(functional.selu(self.input_norm(x), inplace=True))
        x = functional.selu(self.output_norm(x), inplace=True)  # (B, C, F, T)
        scores = self.attention(x)
        with no_autocast(x):
            scores, x = scores.to(self.position.dtype), x.to(self.position.dtype)
            spectral = (x * torch.softmax(scores, dim=3)).sum(dim=3).transpose(1, 2)  # (B, F, C)
            temporal = (x * torch.softmax(scores, dim=2)).sum(dim=2).transpose(1, 2)  # (B, T, C)
            return self.judge(spectral, temporal)
