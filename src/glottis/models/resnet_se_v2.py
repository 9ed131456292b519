"""ResNetSE34V2: ResNet-34 with squeeze-excitation at half width, "H/SAP" and "H/ASP".

Kwon, Heo, Lee and Chung, "The ins and outs of speaker recognition: lessons from VoxSRC 2020",
ICASSP 2021 (arXiv 2010.15809), section 2.  Weights of its public trainer
(clovaai/voxceleb_trainer, MIT) load under their original names and give its outputs.

What differs from ResNetSE34L: pre-emphasis; a 3x3 stem at full resolution, ReLU before its batch
norm; widths 32 to 256, stages 2 to 4 halve both axes; frequency is not averaged but joins the
channels; every one of these has its own attention over time.

Initialisation: convolutions of the stem and the stages Kaiming normal (fan-out, ReLU), batch norms
1 and 0, the rest as torch does.  Shapes: B batch, F mel bins, T frames, C channels, D embedding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.errors import ModelError
from glottis.models._interface import require_features
from glottis.models._parity import golden
from glottis.models._registry import register_model
from glottis.models.parts.pooling import (
    ChannelAttention,
    ChannelAttentivePooling,
    ChannelStatisticsPooling,
)
from glottis.models.parts.precision import no_autocast
from glottis.models.resnet_se import ResNetSE34L, stage


class ResNetSE34V2Config(Config):
    """Options of ResNetSE34V2; the defaults (H/ASP, 64 mel bins) have 8,028,492 parameters."""

    embedding_size: int = Field(512, ge=1)
    """D, values of an embedding"""
    pooling: Literal["sap", "asp"] = "asp"
    """over time, a weight per channel and frame: mean, or mean and standard deviation"""


@register_model(
    "resnetse34v2",
    ResNetSE34V2Config,
    parity=golden("vox_ResNetSE34V2_ASP", "vox_ResNetSE34V2_SAP"),
)
class ResNetSE34V2(nn.Module):
    """(B, F, T) normalised log-mel features -> (B, D) embeddings, not normalised; T >= 8 frames.

    F is a multiple of 8.  Kwon et al., ICASSP 2021, section 2.
    """

    reference = "Kwon et al., ICASSP 2021"
    task = "speaker"
    input = "features"
    min_frames = 8
    window_seconds = None
    unused_parameters = ()
    heavy_blocks = ("stages.0", "stages.1", "stages.2", "stages.3")
    default_features: dict[str, Any] = {  # noqa: RUF012
        **ResNetSE34L.default_features,
        "num_mels": 64,
        "pre_emphasis": 0.97,
    }

    def __init__(self, config: ResNetSE34V2Config, num_features: int) -> None:
        super().__init__()
        if num_features % 8:
            raise ModelError(
                f"the front end gives {num_features} features, not a multiple of 8",
                why="this network halves them three times",
                fix="use 64, or the 40 or 80 of other networks",
            )
        self.embedding_size = config.embedding_size
        self.num_features = num_features
        self.stem = nn.Conv2d(1, 32, 3, padding=1)
        self.stem_norm = nn.BatchNorm2d(32)
        self.stages = nn.Sequential(
            stage(32, 32, num_blocks=3, stride=1),
            stage(32, 64, num_blocks=4, stride=2),
            stage(64, 128, num_blocks=6, stride=2),
            stage(128, 256, num_blocks=3, stride=2),
        )
        channels = 256 * (num_features // 8)
        attention = ChannelAttention(channels, activation="relu_norm")
        self.pooling = (
            ChannelAttentivePooling(channels, attention)
            if config.pooling == "sap"
            else ChannelStatisticsPooling(channels, attention, min_variance=1e-5)
        )
        self.embedding = nn.Linear(self.pooling.output_size, config.embedding_size)
        for module in (self.stem, *self.stages.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        require_features(features, self.num_features, self.min_frames)
        x = self.stem_norm(functional.relu(self.stem(features[:, None]), inplace=True))
        x = self.stages(x)  # (B, 256, F / 8, T / 8)
        with no_autocast(x):
            return self.embedding(self.pooling(x.flatten(1, 2)))  # row = channel * F / 8 + bin

    @staticmethod
    def original_name(name: str) -> str:
        """The name of our tensor ``name`` in the public trainer's checkpoints."""
        name = ResNetSE34L.original_name(name)
        for part, index in (("reduce", 0), ("norm", 2), ("expand", 3)):
            name = re.sub(rf"^pooling\.attention\.{part}\.", f"attention.{index}.", name)
        return name

    original_prefixes = ResNetSE34L.original_prefixes
    original_extras = ResNetSE34L.original_extras

    @staticmethod
    def original_options(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options and front-end options that the shapes in a checkpoint imply."""
        options: dict[str, Any] = {}
        features: dict[str, Any] = {}
        if "fc.weight" in state and "attention.0.weight" in state:
            channels = state["attention.0.weight"].shape[1]
            options["embedding_size"] = state["fc.weight"].shape[0]
            options["pooling"] = "sap" if state["fc.weight"].shape[1] == channels else "asp"
            features["num_mels"] = channels // 32
        return options, features
