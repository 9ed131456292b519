"""VGGVox: the "VGG-M-40" baseline, six convolutions on 40 mel bins.

Nagrani, Chung and Zisserman, "VoxCeleb: a large-scale speaker identification dataset", Interspeech
2017, section 4; with 40 mel bins and the poolings here: Chung et al., "In defence of metric
learning for speaker recognition", Interspeech 2020 (arXiv 2003.11982), section 3.2.  Weights of its
public trainer (clovaai/voxceleb_trainer, MIT) load under their original names and give its outputs.

What differs from the published code, none of it in the result: ReLU comes after max-pooling, where
there are fewer values.

Initialisation: the attention vector Xavier normal, the rest as torch does.  Shapes: B batch, F mel
bins, T frames, C channels, D embedding.
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
    SelfAttentivePooling,
    TemporalAveragePooling,
    TemporalMaximumPooling,
)
from glottis.models.parts.precision import at_least_float32, no_autocast
from glottis.models.resnet_se import ResNetSE34L

_POOLINGS: dict[str, type[nn.Module]] = {
    "sap": SelfAttentivePooling,
    "tap": TemporalAveragePooling,
    "max": TemporalMaximumPooling,
}


class VggVoxConfig(Config):
    """Options of VGGVox; the defaults have 4,295,104 parameters."""

    embedding_size: int = Field(1024, ge=1)
    """D, values of an embedding"""
    pooling: Literal["sap", "tap", "max"] = "sap"
    """over time: self-attentive (weighted mean), mean, or largest value"""


class Layer(nn.Module):
    """(B, C, F, T) -> (B, C', F', T'): convolution - norm - max-pooling - ReLU.

    pool: size and stride of the pooling, (frequency, time) each; None for none.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (1, 1),
        pool: tuple[tuple[int, int], tuple[int, int]] | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding)
        self.norm = nn.BatchNorm2d(channels)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        if self.pool is not None:
            x = functional.max_pool2d(x, *self.pool)
        return functional.relu(x, inplace=True)


@register_model(
    "vggvox", VggVoxConfig, parity=golden("vox_VGGVox_SAP", "vox_VGGVox_TAP", "vox_VGGVox_MAX")
)
class VggVox(nn.Module):
    """(B, F, T) normalised log-mel features -> (B, D) embeddings, not normalised.

    F >= 39 mel bins and T >= 63 frames: six strides of 2 over time.  Chung et al., Interspeech
    2020, section 3.2.
    """

    reference = "Nagrani et al., Interspeech 2017; Chung et al., Interspeech 2020"
    task = "speaker"
    input = "features"
    min_frames = 63
    window_seconds = None
    unused_parameters = ()
    heavy_blocks = ("layers",)
    default_features: dict[str, Any] = {  # noqa: RUF012
        **ResNetSE34L.default_features,
        "window": "hann",
    }

    def __init__(self, config: VggVoxConfig, num_features: int) -> None:
        super().__init__()
        if num_features < 39:
            raise ModelError(
                f"the front end gives {num_features} features; this network needs at least 39",
                fix="use the 40 mel bins of the published one",
            )
        self.embedding_size = config.embedding_size
        self.num_features = num_features
        self.layers = nn.Sequential(
            Layer(1, 96, (5, 7), (1, 2), (2, 2), pool=((1, 3), (1, 2))),
            Layer(96, 256, (5, 5), (2, 2), (1, 1), pool=((3, 3), (2, 2))),
            Layer(256, 384, (3, 3)),
            Layer(384, 256, (3, 3)),
            Layer(256, 256, (3, 3), pool=((3, 3), (2, 2))),
            Layer(256, 512, (4, 1), padding=(0, 0)),
        )
        self.pooling = _POOLINGS[config.pooling](512)
        self.maximum = config.pooling == "max"
        self.embedding = nn.Linear(512, config.embedding_size)

    def forward(self, features: Tensor) -> Tensor:
        require_features(features, self.num_features, self.min_frames)
        x = self.layers(features[:, None])  # (B, 512, 1, T'); more rows from 47 mel bins on
        with no_autocast(x):
            x = at_least_float32(x)
            return self.embedding(self.pooling(x.amax(dim=2) if self.maximum else x.mean(dim=2)))

    @staticmethod
    def original_name(name: str) -> str:
        """The name of our tensor ``name`` in the public trainer's checkpoints."""
        layer = re.match(r"layers\.(\d)\.(conv|norm)\.", name)
        if layer:
            index = (0, 4, 8, 11, 14, 18)[int(layer[1])] + (layer[2] == "norm")
            return f"netcnn.{index}.{name[layer.end() :]}"
        return ResNetSE34L.original_name(name)

    original_prefixes = ResNetSE34L.original_prefixes
    original_extras = ResNetSE34L.original_extras

    @staticmethod
    def original_options(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options that the shapes in a checkpoint imply.

        They do not tell the mean from the maximum, nor whether the energies were logarithmic: pass
        ``pooling="max"`` and ``features={"log": "none"}``.
        """
        options: dict[str, Any] = {}
        if "fc.weight" in state:
            options["embedding_size"] = state["fc.weight"].shape[0]
            options["pooling"] = "sap" if "attention" in state else "tap"
        return options, {}
