"""LCNN: light convolutions with max feature maps, two bidirectional LSTMs, average over time.

Lavrentyeva et al., "STC antispoofing systems for the ASVspoof2019 challenge", Interspeech 2019, for
the convolutions; Wang and Yamagishi, "A comparative study on recent neural spoofing countermeasures
for synthetic speech detection", Interspeech 2021 (arXiv 2103.11326), for what is behind them
("LCNN-LSTM-sum").  The LFCC-LCNN baseline of ASVspoof 2021 is the same network.  Max feature map:
Wu, He, Sun and Tan, "A light CNN for deep face representation with noisy labels", IEEE TIFS 2018.

The defaults count 275,970 parameters; published for LCNN-LSTM-sum: 276 thousand (Jung et al.,
"AASIST", ICASSP 2022, table 2).  The network of 2019 that ends in fully connected layers is not
offered: its size depends on a fixed number of frames and could not be checked.

Worth knowing:
- the LSTMs see one step per 16 frames; their output is added to their input before the average;
- batch norms have no gain and no bias, and there is none behind the first convolution;
- the published training with P2SGrad has a cosine layer in place of the last one
  (``loss: {name: p2s_grad}``); with sigmoid, the embedding is the score itself.

What differs from the published code, none of it in the result: in eval mode a batch norm is part of
the convolution before it (its gain is positive, so it may trade places with the maxima); LSTMs,
average and classifier are float32 under autocast.

Initialisation: as torch does.  Shapes: B batch, F features, T frames, C channels, D embedding.
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
from glottis.models._parity import published_count
from glottis.models._registry import register_model
from glottis.models.parts.pooling import TemporalAveragePooling
from glottis.models.parts.precision import at_least_float32, no_autocast

_STRIDE = 16  # of the four pools together
# channels behind the maximum, kernel, halve both axes, batch norm
_LAYERS = (
    (32, 5, True, False),
    (32, 1, False, True),
    (48, 3, True, True),
    (48, 1, False, True),
    (64, 3, True, False),
    (64, 1, False, True),
    (32, 3, False, True),
    (32, 1, False, True),
    (32, 3, True, False),
)


class LcnnConfig(Config):
    """Options of LCNN; the defaults have 275,970 parameters."""

    embedding_size: int = Field(64, ge=1)
    """D, values before the classifier"""
    lstm_layers: int = Field(2, ge=1)
    """bidirectional LSTMs on top of each other"""
    dropout: float = Field(0.7, ge=0, lt=1)
    """on the maps before the LSTMs"""


def max_feature_map(x: Tensor) -> Tensor:
    """(B, 2 C, ...) -> (B, C, ...): the larger one of channels c and C + c."""
    first, second = x.chunk(2, dim=1)
    return torch.maximum(first, second)


class LightLayer(nn.Module):
    """(B, C, F, T) -> (B, C', F, T) or (B, C', F // 2, T // 2): conv - maximum - pool - norm."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, *, pool: bool, norm: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 2 * channels, kernel, padding=kernel // 2)
        self.pool, self.padding = pool, kernel // 2
        self.norm = nn.BatchNorm2d(channels, affine=False) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        norm, separate = self.norm, not isinstance(self.conv, nn.Conv2d)  # beside an adapter
        weight, bias = self.conv.weight, self.conv.bias
        assert bias is not None
        if norm is not None and not norm.training and not separate:
            mean, variance = norm.running_mean, norm.running_var
            assert mean is not None and variance is not None  # noqa: PT018
            gain = torch.rsqrt(variance + norm.eps).repeat(2)  # for both halves
            weight, bias = weight * gain[:, None, None, None], (bias - mean.repeat(2)) * gain
        y = self.conv(x) if separate else functional.conv2d(x, weight, bias, padding=self.padding)
        y = max_feature_map(y)
        y = functional.max_pool2d(y, 2) if self.pool else y
        return norm(y) if norm is not None and (norm.training or separate) else y


@register_model(
    "lcnn",
    LcnnConfig,
    parity=published_count("276k", 'Jung et al., "AASIST", ICASSP 2022, table 2 (LCNN-LSTM-sum)'),
)
class Lcnn(nn.Module):
    """(B, F, T) features -> embedding (B, D) and logits (B, 2); F >= 16, T >= 16 frames.

    Wang and Yamagishi, Interspeech 2021.  It hears whole utterances.
    """

    reference = "Lavrentyeva et al., Interspeech 2019; Wang and Yamagishi, Interspeech 2021"
    task = "spoof"
    input = "features"
    min_frames = _STRIDE
    window_seconds = None
    unused_parameters = ()
    heavy_blocks = ("layers",)
    default_features: dict[str, Any] = {  # noqa: RUF012
        "name": "lfcc",
        "window_samples": 320,
        "hop_samples": 160,
        "fft_size": 512,
        "num_filters": 20,
        "num_coefficients": 20,
        "delta_orders": 2,
        "energy": True,
    }

    def __init__(self, config: LcnnConfig, num_features: int) -> None:
        super().__init__()
        if num_features < _STRIDE:
            raise ModelError(
                f"lcnn needs at least {_STRIDE} features, not {num_features}",
                fix="use more coefficients, or deltas",
            )
        self.num_features = num_features
        self.embedding_size = config.embedding_size
        layers, before = [], 1
        for channels, kernel, pool, norm in _LAYERS:
            layers.append(LightLayer(before, channels, kernel, pool=pool, norm=norm))
            before = channels
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        width = before * (num_features // _STRIDE)
        self.lstm = nn.LSTM(
            width, width // 2, config.lstm_layers, batch_first=True, bidirectional=True
        )
        self.pooling = TemporalAveragePooling(width)
        self.embedding = nn.Linear(width, config.embedding_size)
        self.classifier = nn.Linear(config.embedding_size, 2)

    def forward(self, features: Tensor) -> SpoofOutput:
        require_features(features, self.num_features, self.min_frames)
        maps = self.dropout(self.layers(features[:, None]))  # (B, C, F / 16, T / 16)
        with no_autocast(maps):
            steps = at_least_float32(maps).permute(0, 3, 1, 2).flatten(2)  # (B, T / 16, C F / 16)
            context, _ = self.lstm(steps)
            embedding = self.embedding(self.pooling((context + steps).transpose(1, 2)))
            return SpoofOutput(embedding, self.classifier(embedding))
