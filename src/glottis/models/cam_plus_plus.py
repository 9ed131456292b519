"""CAM++: a 2-D convolutional front, then densely connected time-delay layers with context masks.

Wang, Zheng, Chen, Cheng and Chen, "CAM++: a fast and efficient network for speaker verification
using context-aware masking", Interspeech 2023 (arXiv 2303.00332).  7.18 million parameters in
wespeaker's VoxCeleb table; the defaults here have 7,176,224.  Weights of wespeaker (Apache-2.0) and
3D-Speaker (Apache-2.0) load under their original names and give their outputs.

Both name their tensors alike, so the format has to be said unless the file holds wespeaker's
classifier.  They differ in the front end (wespeaker: Hamming window, 16-bit scale; 3D-Speaker:
Povey window, scale 1) and in the deviation (wespeaker adds 1e-7 to the variance).

Worth knowing: frames are halved before the dense blocks; a layer hears, beside 3 dilated frames,
the mean of the clip and the mean of its own segment of 100 halved frames (2 s).  What differs
from the published code, none of it in the result: the mask is computed once per segment, not per
frame; in eval mode the batch norms of the front are folded into the convolutions before them.

Initialisation: 1-D convolutions and the last layer Kaiming normal (fan-in) with biases 0, the rest
as torch does.
Shapes: B batch, F features, T frames, C channels, D embedding, G segments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.models._formats import Format, Implied, renamer
from glottis.models._interface import require_features
from glottis.models._parity import golden
from glottis.models._registry import register_model
from glottis.models.parts.folding import conv_norm
from glottis.models.parts.pooling import TemporalStatisticsPooling
from glottis.models.parts.precision import at_least_float32, no_autocast

_DILATIONS = (1, 2, 2)


class CamPlusPlusConfig(Config):
    """Options of CAM++; the defaults have 7,176,224 parameters."""

    embedding_size: int = Field(512, ge=1)
    """D, values of an embedding; published: 512, and 192 (6,848,544 parameters)"""
    num_layers: tuple[int, int, int] = (12, 24, 16)
    """layers of the three dense blocks"""
    growth: int = Field(32, ge=2)
    """channels that each layer adds"""
    bottleneck: int = Field(128, ge=2)
    """channels inside a layer"""
    front_channels: int = Field(32, ge=1)
    """channels of the 2-D front"""
    channels: int = Field(128, ge=2)
    """channels that enter the first dense block"""
    segment_frames: int = Field(100, ge=1)
    """halved frames that share one local context"""
    min_variance: float = Field(1e-7, gt=0)
    """added to the variance in the pooling; 3D-Speaker adds nothing, as good as 1e-12"""


class FrontBlock(nn.Module):
    """(B, C, F, T) -> (B, C, F', T): conv - norm - ReLU - conv - norm - add - ReLU."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=(stride, 1), padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Sequential | None = None
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, channels, 1, stride=(stride, 1), bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(conv_norm(x, self.conv1, self.norm1), inplace=True)
        y = conv_norm(y, self.conv2, self.norm2)
        y = y.add_(x if self.shortcut is None else conv_norm(x, *self.shortcut))
        return functional.relu(y, inplace=True)


class Front(nn.Module):
    """2-D convolutions that keep the frames: (B, F, T) -> (B, C ceil(F / 8), T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.blocks = nn.Sequential(*(FrontBlock(channels, stride) for stride in (2, 1, 2, 1)))
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        x = conv_norm(features[:, None], self.conv1, self.norm1)
        x = self.blocks(functional.relu(x, inplace=True))
        x = functional.relu(conv_norm(x, self.conv2, self.norm2), inplace=True)
        return x.flatten(1, 2)


class ContextMask(nn.Module):
    """A dilated convolution times a mask from the context: (B, C, T) -> (B, C', T).

    mask = sigmoid(W2 relu(W1 (mean of the clip + mean of the segment) + b1) + b2).  The last
    segment may be shorter, and its mean is that of what there is.
    """

    def __init__(self, channels: int, growth: int, dilation: int, segment_frames: int) -> None:
        super().__init__()
        self.segment = segment_frames
        self.local = nn.Conv1d(channels, growth, 3, padding=dilation, dilation=dilation, bias=False)
        self.reduce = nn.Conv1d(channels, channels // 2, 1)
        self.expand = nn.Conv1d(channels // 2, growth, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.local(x)
        mask = torch.sigmoid(self.expand(functional.relu(self.reduce(self._context(x)))))
        if mask.shape[-1] > 1:  # one column per segment
            mask = mask.repeat_interleave(self.segment, dim=-1)[..., : x.shape[-1]]
        return y * mask

    def _context(self, x: Tensor) -> Tensor:
        """(B, C, G): mean of the clip + mean of each segment."""
        with no_autocast(x):
            x = at_least_float32(x)
            whole = x.mean(dim=-1, keepdim=True)
            if x.shape[-1] <= self.segment:
                return whole + whole
            parts = functional.avg_pool1d(x, self.segment, self.segment, ceil_mode=True)
            return whole + parts


class DenseLayer(nn.Module):
    """norm - ReLU - 1x1 - norm - ReLU - masked convolution: (B, C, T) -> (B, growth, T)."""

    def __init__(self, in_channels: int, config: CamPlusPlusConfig, dilation: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm1d(in_channels)
        self.conv = nn.Conv1d(in_channels, config.bottleneck, 1, bias=False)
        self.norm2 = nn.BatchNorm1d(config.bottleneck)
        self.mask = ContextMask(config.bottleneck, config.growth, dilation, config.segment_frames)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(functional.relu(self.norm1(x), inplace=True))
        return self.mask(functional.relu(self.norm2(x), inplace=True))


class Transition(nn.Module):
    """norm - ReLU - 1x1: (B, C, T) -> (B, C // 2, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.conv = nn.Conv1d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.relu(self.norm(x), inplace=True))


def _options(state: Mapping[str, Tensor], min_variance: float) -> dict[str, Any]:
    if "xvector.dense.linear.weight" not in state:
        return {}
    size = state["xvector.dense.linear.weight"].shape[0]
    return {"embedding_size": size, "min_variance": min_variance}


def _wespeaker_options(state: Mapping[str, Tensor]) -> Implied:
    return _options(state, 1e-7), {"window": "hamming", "full_scale": 32768.0}


def _3dspeaker_options(state: Mapping[str, Tensor]) -> Implied:
    return _options(state, 1e-12), {"window": "povey", "full_scale": 1.0}


_FRONT_NAMES = ("head.layer1.0.", "head.layer1.1.", "head.layer2.0.", "head.layer2.1.")
_original_name = renamer(
    [
        (r"^front\.blocks\.(\d)\.", lambda found: _FRONT_NAMES[int(found[1])]),
        (r"^front\.", r"head."),
        (r"^(head.*)\.norm(\d)\.", r"\1.bn\2."),
        (r"^stem\.", r"xvector.tdnn.linear."),
        (r"^stem_norm\.", r"xvector.tdnn.nonlinear.batchnorm."),
        (
            r"^blocks\.(\d)\.(\d+)\.",
            lambda found: f"xvector.block{int(found[1]) + 1}.tdnnd{int(found[2]) + 1}.",
        ),
        (r"^transitions\.(\d)\.", lambda found: f"xvector.transit{int(found[1]) + 1}."),
        (r"^(xvector\.block.*)\.norm(\d)\.", r"\1.nonlinear\2.batchnorm."),
        (r"^(xvector\.block.*)\.conv\.", r"\1.linear1."),
        (r"^(xvector\.block.*)\.mask\.local\.", r"\1.cam_layer.linear_local."),
        (r"^(xvector\.block.*)\.mask\.reduce\.", r"\1.cam_layer.linear1."),
        (r"^(xvector\.block.*)\.mask\.expand\.", r"\1.cam_layer.linear2."),
        (r"^(xvector\.transit\d)\.norm\.", r"\1.nonlinear.batchnorm."),
        (r"^(xvector\.transit\d)\.conv\.", r"\1.linear."),
        (r"^last_norm\.", r"xvector.out_nonlinear.batchnorm."),
        (r"^embedding\.", r"xvector.dense.linear."),
        (r"^embedding_norm\.", r"xvector.dense.nonlinear.batchnorm."),
    ]
)
_MARKS = ("head.conv1.weight", "xvector.tdnn.linear.weight")


@register_model(
    "cam_plus_plus",
    CamPlusPlusConfig,
    parity=golden(
        "importer_wespeaker_campplus_tstp512",
        "importer_3dspeaker_campplus_192",
        "importer_3dspeaker_campplus_512",
    ),
)
class CamPlusPlus(nn.Module):
    """(B, F, T) filterbank features -> (B, D) embeddings, not scaled to unit length; T >= 1 frame.

    Wang et al., Interspeech 2023, figure 1.
    """

    reference = "Wang et al., Interspeech 2023"
    task = "speaker"
    input = "features"
    min_frames = 1
    window_seconds = None
    unused_parameters = ()
    heavy_blocks = ("blocks.0", "blocks.1", "blocks.2")
    default_features: dict[str, Any] = {  # noqa: RUF012
        "name": "kaldi_fbank",
        "num_mels": 80,
        "window": "hamming",
        "normalise": "mean",
    }
    formats = (
        Format(
            name="wespeaker",
            original_name=_original_name,
            marks=_MARKS,
            extras=("projection.*",),
            options=_wespeaker_options,
        ),
        Format(
            name="3dspeaker",
            original_name=_original_name,
            marks=_MARKS,
            options=_3dspeaker_options,
        ),
    )

    def __init__(self, config: CamPlusPlusConfig, num_features: int) -> None:
        super().__init__()
        self.embedding_size = config.embedding_size
        self.num_features = num_features
        rows = -(-num_features // 8)  # three halvings, each rounded up
        width = config.channels
        self.front = Front(config.front_channels)
        self.stem = nn.Conv1d(
            config.front_channels * rows, width, 5, stride=2, padding=2, bias=False
        )
        self.stem_norm = nn.BatchNorm1d(width)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for count, dilation in zip(config.num_layers, _DILATIONS, strict=True):
            widths = [width + number * config.growth for number in range(count)]
            self.blocks.append(nn.ModuleList(DenseLayer(w, config, dilation) for w in widths))
            self.transitions.append(Transition(width + count * config.growth))
            width = (width + count * config.growth) // 2
        self.last_norm = nn.BatchNorm1d(width)
        self.pooling = TemporalStatisticsPooling(width, config.min_variance)
        self.embedding = nn.Linear(self.pooling.output_size, config.embedding_size, bias=False)
        self.embedding_norm = nn.BatchNorm1d(config.embedding_size, affine=False)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Tensor) -> Tensor:
        require_features(features, self.num_features, self.min_frames)
        x = self.stem_norm(self.stem(self.front(features)))  # (B, C, T / 2)
        x = functional.relu(x, inplace=True)
        for block, transition in zip(self.blocks, self.transitions, strict=True):
            for layer in block:  # type: ignore[attr-defined]
                x = torch.cat([x, layer(x)], dim=1)
            x = transition(x)
        x = functional.relu(self.last_norm(x), inplace=True)
        with no_autocast(x):
            return self.embedding_norm(self.embedding(self.pooling(x)))
