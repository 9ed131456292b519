"""SE-ResNet countermeasure: spectral features, squeeze-excitation residual trunk, attention.

Trunk: He et al., "Deep residual learning for image recognition", CVPR 2016, basic blocks, with
squeeze-excitation (Hu et al., "Squeeze-and-excitation networks", CVPR 2018).  Pooling: Okabe et
al., "Attentive statistics pooling for deep speaker embedding", Interspeech 2018.  The arrangement
is that of a public deepfake detector (gkibria121/ai-voice-detector); checkpoints of its network
load under their original names and give its outputs.

Worth knowing:
- the front end is that detector's mel spectrogram in decibel below the loudest value.  The detector
  computes it over the whole file and crops afterwards; a model here sees what it is given, so that
  in files longer than the window 0 dB is the loudest value of the window;
- its other inputs are front ends too: `LFCC`, `MFCC`, `CQT` and `PROSODY` below, and several of
  them are `fused`; LFCC and MFCC are exact, the last two have no stored vectors to compare with;
- one attention weight per frame serves all channels; the deviation is kept above 1e-6.

What differs from the published code, none of it in the result: pooling and classifier run in
float32 under autocast, and the variance, which may be as small as 1e-12, is a mean of squares, not
a difference of two means.  Initialisation: as torch does.

Shapes: B batch, F features, T frames, C channels, D embedding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.models._formats import renamer
from glottis.models._interface import SpoofOutput, require_features
from glottis.models._parity import golden
from glottis.models._registry import register_model
from glottis.models.parts.frame_pooling import FramePooling
from glottis.models.parts.precision import at_least_float32, no_autocast
from glottis.models.parts.squeeze import SqueezeExcitation

_STFT: dict[str, Any] = {
    "fft_size": 512,
    "window_samples": 512,
    "hop_samples": 160,
    "window": "hann",
    "padding": "zero",
    "low_hz": 0.0,
    "high_hz": 8000.0,
    "log_floor": 1e-10,
}
_SLANEY_DB: dict[str, Any] = {
    "mel_scale": "slaney",
    "mel_area_norm": True,
    "log": "db",
    "dynamic_range_db": 80.0,
}
MEL: dict[str, Any] = {
    "name": "logmel",
    "num_mels": 128,
    "db_reference": "clip_maximum",
    **_STFT,
    **_SLANEY_DB,
}
"""128 Slaney mel bands in decibel below the loudest value, at most 80 ("feature 1")."""
LFCC: dict[str, Any] = {
    "name": "lfcc",
    "num_filters": 20,
    "num_coefficients": 13,
    "delta_orders": 0,
    "pre_emphasis": 0.0,
    "log": "natural",
    **_STFT,
}
"""13 linear-frequency cepstra ("feature 2")."""
MFCC: dict[str, Any] = {
    "name": "mfcc",
    "num_mels": 128,
    "num_coefficients": 13,
    "delta_orders": 0,
    **_STFT,
    **_SLANEY_DB,
}
"""13 mel-frequency cepstra ("feature 3")."""
_SEMITONE = 2.0 ** (1.0 / 12.0)
CQT: dict[str, Any] = {
    "name": "cqt",
    "num_bins": 84,
    "bins_per_octave": 12,
    "hop_samples": 512,
    # librosa derives Q from the two neighbours of a bin, (r^2 + 1) / (r^2 - 1), Brown from one
    "window_scale": (_SEMITONE**2 + 1.0) / (_SEMITONE + 1.0),
}
"""84 semitones from C1 in decibel below the loudest value ("feature 4")."""
PROSODY: dict[str, Any] = {"name": "prosody", "f0_unit_hz": 500.0}
"""Seven prosodic contours ("feature 8"), with our own estimators."""


class SeResNetConfig(Config):
    """SE-ResNet with 2, 2, 2, 2 blocks (11,981,251 parameters)."""

    layers: tuple[int, int, int, int] = (2, 2, 2, 2)
    """blocks of each stage"""
    channels: tuple[int, int, int, int] = (64, 128, 256, 512)
    """width of each stage, at least 16"""
    attention_size: int = Field(128, ge=1)
    """hidden units of the attention over frames"""
    dropout: float = Field(0.3, ge=0, lt=1)
    """twice in the classifier"""


class SeResNetDeepConfig(SeResNetConfig):
    """SE-ResNet with 3, 4, 6, 3 blocks (22,159,555 parameters)."""

    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    """blocks of each stage"""


class SeResNetSmallConfig(SeResNetConfig):
    """SE-ResNet with 1, 1, 1, 1 blocks of 16 to 128 channels (579,731 parameters)."""

    layers: tuple[int, int, int, int] = (1, 1, 1, 1)
    """blocks of each stage"""
    channels: tuple[int, int, int, int] = (16, 32, 64, 128)
    """width of each stage, at least 16"""
    attention_size: int = Field(32, ge=1)
    """hidden units of the attention over frames"""


class Block(nn.Module):
    """(B, C, F, T) -> (B, C', F', T'): conv - norm - ReLU - conv - norm - SE - add - ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
            )
        self.se = SqueezeExcitation(channels, reduction=16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.se(self.norm2(self.conv2(y)))
        y = y.add_(x if self.shortcut is None else self.shortcut(x))
        return functional.relu(y, inplace=True)


def stage(in_channels: int, channels: int, num_blocks: int, stride: int) -> nn.Sequential:
    """Blocks of one width; the first one changes width and rate."""
    blocks = [Block(in_channels, channels, stride)]
    blocks += [Block(channels, channels, 1) for _ in range(num_blocks - 1)]
    return nn.Sequential(*blocks)


_original_name = renamer(
    [
        (r"^stages\.(\d)\.", lambda found: f"layer{int(found[1]) + 1}."),
        (r"^stem\.", r"backbone.stem.0."),
        (r"^stem_norm\.", r"backbone.stem.1."),
        (r"^layer", r"backbone.layer"),
        (r"\.norm(\d)\.", r".bn\1."),
        (r"\.se\.reduce\.", r".se.fc.2."),
        (r"\.se\.expand\.", r".se.fc.4."),
        (r"\.shortcut\.", r".downsample."),
        (r"^pooling\.reduce\.", r"pool.att.0."),
        (r"^pooling\.expand\.", r"pool.att.2."),
    ]
)


@register_model("se_resnet_small", SeResNetSmallConfig, parity=golden("seresnet_small"))
@register_model("se_resnet_deep", SeResNetDeepConfig, parity=golden("seresnet_default_3463"))
@register_model("se_resnet", SeResNetConfig, parity=golden("seresnet_conf_2222"))
class SeResNet(nn.Module):
    """(B, F, T) spectral features -> embedding (B, D) and logits (B, 2); T >= 1 frame.

    He et al., CVPR 2016; Hu et al., CVPR 2018.  D is twice the width of the last stage.  One frame
    of the last stage covers 32 frames; published scores come from the first 64,600 samples.
    """

    reference = "gkibria121/ai-voice-detector, 2025, after Hu et al., CVPR 2018"
    task = "spoof"
    input = "features"
    min_frames = 1
    window_seconds = 64600 / 16000
    unused_parameters = ()
    heavy_blocks = ("stages.0", "stages.1", "stages.2", "stages.3")
    default_features = MEL

    def __init__(self, config: SeResNetConfig, num_features: int) -> None:
        super().__init__()
        widths = config.channels
        self.num_features = num_features
        self.stem = nn.Conv2d(1, widths[0], 7, stride=2, padding=3, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        self.stem_pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.Sequential(
            *(
                stage(before, width, blocks, stride)
                for before, width, blocks, stride in zip(
                    (widths[0], *widths), widths, config.layers, (1, 2, 2, 2), strict=False
                )
            )
        )
        self.pooling = FramePooling(widths[-1], config.attention_size, "relu", min_variance=1e-12)
        self.embedding_size = self.pooling.output_size
        self.classifier = nn.Sequential(
            nn.Linear(self.embedding_size, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(512, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(256, 2),
        )

    def forward(self, features: Tensor) -> SpoofOutput:
        require_features(features, self.num_features, self.min_frames)
        x = self.stem_norm(self.stem(features[:, None]))  # (B, C, F / 2, T / 2)
        x = self.stem_pool(functional.relu(x, inplace=True))
        x = self.stages(x)  # (B, C, F / 32, T / 32)
        with no_autocast(x):
            embedding = self.pooling(at_least_float32(x).mean(dim=2))
            return SpoofOutput(embedding, self.classifier(embedding))

    original_name = staticmethod(_original_name)

    original_prefixes = ("module.",)

    @staticmethod
    def original_options(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options that the shapes in a checkpoint imply."""
        options: dict[str, Any] = {}
        first = [f"backbone.layer{i}.0.conv1.weight" for i in range(1, 5)]
        if all(name in state for name in first):
            options["channels"] = [state[name].shape[0] for name in first]
            pattern = r"backbone\.layer{}\.\d+\.conv1\.weight"
            options["layers"] = [
                sum(re.fullmatch(pattern.format(i), name) is not None for name in state)
                for i in range(1, 5)
            ]
        if "pool.att.0.weight" in state:
            options["attention_size"] = state["pool.att.0.weight"].shape[0]
        return options, {}
