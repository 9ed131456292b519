"""ResNet18 to ResNet293 with statistics pooling, as wespeaker trains them.

Network: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, with
half of its channels.  Implementation and sizes: Wang et al., "Wespeaker: a research and production
oriented speaker embedding learning toolkit", ICASSP 2023 (arXiv 2210.17016).  Weights of
its ResNet34 (Apache-2.0) load under their original names and give its outputs, if they have one
embedding layer (``two_emb_layer: false``, as in all its recipes since July 2022).  For the others
no list of published tensors was at hand, and they are not imported.

Published parameters (wespeaker, runtime/onnxruntime/README.md, table "RTF"): 34 6.63 M, 50 11.13 M,
101 15.89 M, 152 19.81 M, 221 23.79 M, 293 28.62 M.  None was found for 18.

18 and 34 have blocks of two 3x3 convolutions, the others bottlenecks of 1x1, 3x3 and 1x1.  The stem
keeps the size of the map; stages 2 to 4 halve both axes.  What differs from the published code,
none of it in the result: in eval mode batch norms are folded into the convolutions before them.

Initialisation: as torch does.  Shapes: B batch, F features, T frames, C channels, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.models._formats import Implied, renamer
from glottis.models._interface import require_features
from glottis.models._parity import golden, ours, published_count
from glottis.models._registry import register_model
from glottis.models.parts.folding import conv_norm
from glottis.models.parts.pooling import TemporalStatisticsPooling
from glottis.models.parts.precision import no_autocast
from glottis.models.parts.residual import residual_stages

_TABLE = "wespeaker, runtime/onnxruntime/README.md, which cuts to two decimals"


class ResNet34Config(Config):
    """ResNet34 of wespeaker: basic blocks, 3, 4, 6, 3 of them (6,634,336 parameters)."""

    num_blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    """blocks of the four stages"""
    bottleneck: bool = False
    """blocks of 1x1, 3x3 and 1x1 convolutions with four times the channels between blocks"""
    channels: int = Field(32, ge=1)
    """channels of the first stage; each further stage has twice as many"""
    embedding_size: int = Field(256, ge=1)
    """D, values of an embedding"""


class ResNet18Config(ResNet34Config):
    """ResNet18 of wespeaker: basic blocks, 2, 2, 2, 2 of them (4,105,440 parameters)."""

    num_blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    """blocks of the four stages"""


class ResNet50Config(ResNet34Config):
    """ResNet50 of wespeaker: bottlenecks, 3, 4, 6, 3 of them (11,131,360 parameters)."""

    bottleneck: bool = True
    """blocks of 1x1, 3x3 and 1x1 convolutions with four times the channels between blocks"""


class ResNet101Config(ResNet50Config):
    """ResNet101 of wespeaker: bottlenecks, 3, 4, 23, 3 of them (15,892,448 parameters)."""

    num_blocks: tuple[int, int, int, int] = (3, 4, 23, 3)
    """blocks of the four stages"""


class ResNet152Config(ResNet50Config):
    """ResNet152 of wespeaker: bottlenecks, 3, 8, 36, 3 of them (19,814,880 parameters)."""

    num_blocks: tuple[int, int, int, int] = (3, 8, 36, 3)
    """blocks of the four stages"""


class ResNet221Config(ResNet50Config):
    """ResNet221 of wespeaker: bottlenecks, 6, 16, 48, 3 of them (23,792,224 parameters)."""

    num_blocks: tuple[int, int, int, int] = (6, 16, 48, 3)
    """blocks of the four stages"""


class ResNet293Config(ResNet50Config):
    """ResNet293 of wespeaker: bottlenecks, 10, 20, 64, 3 of them (28,626,016 parameters)."""

    num_blocks: tuple[int, int, int, int] = (10, 20, 64, 3)
    """blocks of the four stages"""


@register_model("resnet293_wespeaker", ResNet293Config, parity=published_count("28.62M", _TABLE))
@register_model("resnet221_wespeaker", ResNet221Config, parity=published_count("23.79M", _TABLE))
@register_model("resnet152_wespeaker", ResNet152Config, parity=published_count("19.81M", _TABLE))
@register_model("resnet101_wespeaker", ResNet101Config, parity=published_count("15.89M", _TABLE))
@register_model("resnet50_wespeaker", ResNet50Config, parity=published_count("11.13M", _TABLE))
@register_model(
    "resnet34_wespeaker", ResNet34Config, parity=golden("importer_wespeaker_resnet34_tstp256")
)
@register_model(
    "resnet18_wespeaker",
    ResNet18Config,
    parity=ours("the blocks of ResNet34, fewer of them; no count published"),
)
class ResNet(nn.Module):
    """(B, F, T) filterbank features -> (B, D) embeddings, not normalised; T >= 1 frame.

    Wang et al., ICASSP 2023; the blocks are those of He et al., CVPR 2016.
    """

    reference = "Wang et al., ICASSP 2023, after He et al., CVPR 2016"
    task = "speaker"
    input = "features"
    min_frames = 1
    window_seconds = None
    unused_parameters = ()
    heavy_blocks = ("stages.0", "stages.1", "stages.2", "stages.3")
    default_features: dict[str, Any] = {  # noqa: RUF012
        "name": "kaldi_fbank",
        "num_mels": 80,
        "window": "hamming",
        "normalise": "mean",
    }

    def __init__(self, config: ResNet34Config, num_features: int) -> None:
        super().__init__()
        self.embedding_size = config.embedding_size
        self.num_features = num_features
        self.stem = nn.Conv2d(1, config.channels, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(config.channels)
        self.stages, channels, rows = residual_stages(
            config.num_blocks, config.channels, num_features, bottleneck=config.bottleneck
        )
        self.pooling = TemporalStatisticsPooling(channels * rows)
        self.embedding = nn.Linear(self.pooling.output_size, config.embedding_size)

    def forward(self, features: Tensor) -> Tensor:
        require_features(features, self.num_features, self.min_frames)
        x = conv_norm(features[:, None], self.stem, self.stem_norm)  # (B, C, F, T)
        x = self.stages(functional.relu(x, inplace=True))  # (B, C', F / 8, T / 8)
        with no_autocast(x):
            return self.embedding(self.pooling(x.flatten(1, 2)))

    original_name = staticmethod(
        renamer(
            [
                (r"^stages\.(\d)\.", lambda found: f"layer{int(found[1]) + 1}."),
                (r"^stem\.", r"conv1."),
                (r"^stem_norm\.", r"bn1."),
                (r"\.norm(\d)\.", r".bn\1."),
                (r"^embedding\.", r"seg_1."),
            ]
        )
    )
    """the name of our tensor in wespeaker's checkpoints"""
    original_for = ("resnet34_wespeaker",)
    """the only one whose published tensors could be compared"""
    original_extras = ("projection.*",)
    """not part of the network: the classifier"""

    @staticmethod
    def original_options(state: Mapping[str, Tensor]) -> Implied:
        """Embedding size, channels and filters, as the shapes in a checkpoint imply them."""
        if not {"seg_1.weight", "conv1.weight"} <= state.keys():
            return {}, {}
        size, pooled = state["seg_1.weight"].shape
        channels = state["conv1.weight"].shape[0]
        options = {"embedding_size": size, "channels": channels}
        return options, {"num_mels": 8 * (pooled // (2 * 8 * channels))}
