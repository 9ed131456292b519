"""ResNetSE34, 50, 101 and 152: deep residual networks with squeeze-excitation on log-mel, ASP.

The blocks are SE-ResNet's: Hu, Shen and Sun, "Squeeze-and-excitation networks", CVPR 2018 (arXiv
1709.01507), figure 3, with two 3x3 convolutions in 34 and bottlenecks in the others.
Around them stands what its speaker relatives have: a 3x3 stem that keeps the size of the map, half
of the channels, attentive statistics over channels and rows (Heo, Lee, Huh and Chung, "Clova
baseline system for the VoxCeleb speaker recognition challenge 2020", arXiv 2009.14153).

No weights and no counts are published for these networks as a whole.  The four stages with the
published widths (``channels: 64, reduction: 16``), the 7x7 stem and the classifier of the image
networks count 21.96 M (34), 28.09 M (50), 49.33 M (101) and 66.82 M (152) parameters, which is what
is published for SE-ResNet (timm, legacy_seresnet*; the paper: about 2.5 M over ResNet-50's 25 M).

In eval mode batch norms are folded into the convolutions before them, with the same result.

Initialisation: convolutions Kaiming normal (fan-out, ReLU), batch norms 1 and 0, linear layers and
the attention as torch does.  Shapes: B batch, F mel bins, T frames, C channels, D embedding.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.models._interface import require_features
from glottis.models._parity import ours
from glottis.models._registry import register_model
from glottis.models.parts.folding import conv_norm
from glottis.models.parts.pooling import ChannelAttention, ChannelStatisticsPooling
from glottis.models.parts.precision import no_autocast
from glottis.models.parts.residual import residual_stages

_PARITY = ours("the blocks have the published counts of SE-ResNet; none for the whole network")


class ResNetSE34Config(Config):
    """ResNetSE34: blocks of two 3x3 convolutions (7,373,356 parameters)."""

    num_blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    """blocks of the four stages"""
    bottleneck: bool = False
    """blocks of 1x1, 3x3 and 1x1 convolutions with four times the channels between blocks"""
    channels: int = Field(32, ge=1)
    """channels of the first stage, each further one has twice as many; 64 in SE-ResNet"""
    reduction: int = Field(8, ge=1)
    """channels over hidden units of the squeeze-excitation; 16 in SE-ResNet"""
    attention_size: int = Field(128, ge=1)
    """hidden units of the attention over frames"""
    embedding_size: int = Field(256, ge=1)
    """D, values of an embedding"""


class ResNetSE50Config(ResNetSE34Config):
    """ResNetSE50: bottleneck blocks, 3, 4, 6, 3 of them (15,029,392 parameters)."""

    bottleneck: bool = True
    """blocks of 1x1, 3x3 and 1x1 convolutions with four times the channels between blocks"""


class ResNetSE101Config(ResNetSE50Config):
    """ResNetSE101: bottleneck blocks, 3, 4, 23, 3 of them (20,914,384 parameters)."""

    num_blocks: tuple[int, int, int, int] = (3, 4, 23, 3)
    """blocks of the four stages"""


class ResNetSE152Config(ResNetSE50Config):
    """ResNetSE152: bottleneck blocks, 3, 8, 36, 3 of them (25,762,960 parameters)."""

    num_blocks: tuple[int, int, int, int] = (3, 8, 36, 3)
    """blocks of the four stages"""


@register_model("resnetse152", ResNetSE152Config, parity=_PARITY)
@register_model("resnetse101", ResNetSE101Config, parity=_PARITY)
@register_model("resnetse50", ResNetSE50Config, parity=_PARITY)
@register_model("resnetse34", ResNetSE34Config, parity=_PARITY)
class ResNetSE(nn.Module):
    """(B, F, T) log-mel features -> (B, D) embeddings, not normalised; T >= 1 frame.

    Blocks of Hu et al., CVPR 2018.
    """

    reference = "Hu et al., CVPR 2018; Heo et al., 2020 (arXiv 2009.14153)"
    task = "speaker"
    input = "features"
    min_frames = 1
    window_seconds = None
    unused_parameters = ()
    heavy_blocks = ("stages.0", "stages.1", "stages.2", "stages.3")
    default_features: dict[str, Any] = {  # noqa: RUF012
        "name": "logmel",
        "num_mels": 80,
        "pre_emphasis": 0.97,
        "normalise": "mean",
    }

    def __init__(self, config: ResNetSE34Config, num_features: int) -> None:
        super().__init__()
        self.embedding_size = config.embedding_size
        self.num_features = num_features
        self.stem = nn.Conv2d(1, config.channels, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(config.channels)
        self.stages, channels, rows = residual_stages(
            config.num_blocks,
            config.channels,
            num_features,
            bottleneck=config.bottleneck,
            reduction=config.reduction,
        )
        width = channels * rows
        attention = ChannelAttention(width, config.attention_size, "relu_norm")
        self.pooling = ChannelStatisticsPooling(width, attention, min_variance=1e-5)
        self.embedding = nn.Linear(self.pooling.output_size, config.embedding_size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        require_features(features, self.num_features, self.min_frames)
        x = conv_norm(features[:, None], self.stem, self.stem_norm)  # (B, C, F, T)
        x = self.stages(functional.relu(x, inplace=True))  # (B, C', F / 8, T / 8)
        with no_autocast(x):
            return self.embedding(self.pooling(x.flatten(1, 2)))
