"""ResNetSE34L: the "fast ResNet-34" with squeeze-excitation for speaker verification.

Chung, Huh, Mun, Lee, Heo, Choe, Ham, Jung, Lee and Han, "In defence of metric learning for speaker
recognition", Interspeech 2020 (arXiv 2003.11982), section 3.2.  Weights of its public trainer
(clovaai/voxceleb_trainer, MIT) load under their original names and give its outputs.

Worth knowing: inside a block the ReLU comes before the first batch norm; the stem halves the
frequency axis only; the front end normalises each mel bin over the utterance.

Initialisation: convolutions Kaiming normal (fan-out, ReLU), batch norms 1 and 0, the attention
vector Xavier normal, linear layers as torch does.  Shapes: B batch, F mel bins, T frames,
C channels, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.models._formats import renamer
from glottis.models._interface import require_features
from glottis.models._parity import golden
from glottis.models._registry import register_model
from glottis.models.parts.pooling import AttentiveStatisticsPooling, SelfAttentivePooling
from glottis.models.parts.precision import at_least_float32, no_autocast
from glottis.models.parts.squeeze import SqueezeExcitation


class ResNetSE34LConfig(Config):
    """Options of ResNetSE34L; the defaults have 1,437,078 parameters."""

    embedding_size: int = Field(512, ge=1)
    """D, values of an embedding"""
    pooling: Literal["sap", "asp"] = "sap"
    """over time: self-attentive (weighted mean) or attentive statistics (mean and deviation)"""


class Block(nn.Module):
    """(B, C, F, T) -> (B, C', F', T'): conv - ReLU - norm - conv - norm - SE - add - ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.se = SqueezeExcitation(channels)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(functional.relu(self.conv1(x), inplace=True))
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
        (r"^stem\.", r"conv1."),
        (r"^stem_norm\.", r"bn1."),
        (r"\.norm(\d)\.", r".bn\1."),
        (r"\.se\.reduce\.", r".se.fc.0."),
        (r"\.se\.expand\.", r".se.fc.2."),
        (r"\.shortcut\.", r".downsample."),
        (r"^pooling\.frames\.attention$", r"attention"),
        (r"^pooling\.frames\.linear\.", r"sap_linear."),
        (r"^embedding\.", r"fc."),
    ]
)


@register_model(
    "resnetse34l", ResNetSE34LConfig, parity=golden("vox_ResNetSE34L_SAP", "vox_ResNetSE34L_ASP")
)
class ResNetSE34L(nn.Module):
    """(B, F, T) normalised log-mel features -> (B, D) embeddings, not normalised; T >= 10 frames.

    Chung et al., Interspeech 2020, section 3.2.
    """

    reference = "Chung et al., Interspeech 2020"
    task = "speaker"
    input = "features"
    min_frames = 10
    window_seconds = None
    unused_parameters = ()
    heavy_blocks = ("stages.0", "stages.1", "stages.2", "stages.3")
    default_features: dict[str, Any] = {  # noqa: RUF012
        "name": "logmel",
        "num_mels": 40,
        "fft_size": 512,
        "window_samples": 400,
        "hop_samples": 160,
        "window": "hamming",
        "low_hz": 0.0,
        "high_hz": 8000.0,
        "log_floor": 1e-6,
        "normalise": "mean_var",
    }

    def __init__(self, config: ResNetSE34LConfig, num_features: int) -> None:
        super().__init__()
        self.embedding_size = config.embedding_size
        self.num_features = num_features
        self.stem = nn.Conv2d(1, 16, 7, stride=(2, 1), padding=3, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.stages = nn.Sequential(
            stage(16, 16, num_blocks=3, stride=1),
            stage(16, 32, num_blocks=4, stride=2),
            stage(32, 64, num_blocks=6, stride=2),
            stage(64, 128, num_blocks=3, stride=1),
        )
        self.pooling = (
            SelfAttentivePooling(128)
            if config.pooling == "sap"
            else AttentiveStatisticsPooling(128)
        )
        self.embedding = nn.Linear(self.pooling.output_size, config.embedding_size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        require_features(features, self.num_features, self.min_frames)
        x = self.stem_norm(self.stem(features[:, None]))  # (B, 16, F / 2, T)
        x = self.stages(functional.relu(x, inplace=True))  # (B, 128, F / 8, T / 4)
        with no_autocast(x):
            x = at_least_float32(x).mean(dim=2)
            return self.embedding(self.pooling(x))

    original_name = staticmethod(_original_name)

    original_prefixes = ("module.", "__S__.")
    """put before every name by the trainer's wrappers"""
    original_extras = ("torchfb.*", "__L__.*")
    """not part of the network: mel tables, the loss and its class weights"""

    @staticmethod
    def original_options(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options and front-end options that the shapes in a checkpoint imply."""
        options: dict[str, Any] = {}
        features: dict[str, Any] = {}
        if "fc.weight" in state:
            options["embedding_size"] = state["fc.weight"].shape[0]
            options["pooling"] = "asp" if state["fc.weight"].shape[1] == 256 else "sap"
        if "torchfb.mel_scale.fb" in state:
            features["num_mels"] = state["torchfb.mel_scale.fb"].shape[1]
        return options, features
