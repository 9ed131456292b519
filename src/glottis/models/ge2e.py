"""GE2E: a three-layer LSTM on plain mel energies, trained with the generalised end-to-end loss.

Wan, Wang, Papir and Lopez Moreno, "Generalized end-to-end loss for speaker verification", ICASSP
2018 (arXiv 1710.10467).  The weights shipped with Resemblyzer 0.1.4 (Apache-2.0) load under their
original names and give its embeddings; they were trained elsewhere on thousands of speakers.

An utterance is cut into windows of 160 frames (1.6 s) that begin every 77 frames; one that is less
than three quarters full is left out, unless it is the only one.  The embedding is the mean of the
windows' unit vectors, at unit length.  The front end, all of it options of ``logmel``: clips below
-30 dBFS are raised to it; 40 mel bands with area norm, without logarithm; zeros around the clip,
so that the frames in which it fades out are heard (``tail_samples``; ``tail_frames`` here says how
many they are).  The original trims silence with a voice-activity detector before; this is left to
whoever prepares the data.

What differs from the published code, none of it in the result: windows are cut out of the features
of the clip, whose spectrum is computed once; the two scalars of the training loss are not part of
the network.  The LSTM runs in float32 under autocast: mel energies span more than half precision.

Initialisation: as torch does.  Shapes: B batch, F mel bands, T frames, P windows, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.models._formats import Implied
from glottis.models._interface import require_features
from glottis.models._parity import golden
from glottis.models._registry import register_model
from glottis.models.parts.precision import at_least_float32, no_autocast


class Ge2eConfig(Config):
    """Options of the GE2E encoder; the defaults have 1,423,616 parameters."""

    hidden_size: int = Field(256, ge=1)
    """cells of each LSTM layer"""
    num_layers: int = Field(3, ge=1)
    """LSTM layers"""
    embedding_size: int = Field(256, ge=1)
    """D, values of an embedding"""
    window_frames: int = Field(160, ge=1)
    """frames that the LSTM hears in one go"""
    step_frames: int = Field(77, ge=1)
    """from the start of one window to the next: 1.3 windows a second"""
    min_coverage: float = Field(0.75, ge=0, le=1)
    """a last window with a smaller share of frames of the clip is left out"""
    tail_frames: int = Field(2, ge=0)
    """frames at the end in which the clip only fades out: tail_samples / hop_samples of the front
    end; they are heard, but do not count in the coverage"""


@register_model("ge2e", Ge2eConfig, parity=golden("ge2e"))
class Ge2e(nn.Module):
    """(B, F, T) mel energies -> (B, D) embeddings of unit length, no value below 0; T >= 3 frames.

    Wan et al., ICASSP 2018, sections 2 and 3; a clip shorter than a window is followed by zeros.
    """

    reference = "Wan et al., ICASSP 2018"
    task = "speaker"
    input = "features"
    window_seconds = None
    unused_parameters = ()
    default_features: dict[str, Any] = {  # noqa: RUF012
        "name": "logmel",
        "num_mels": 40,
        "fft_size": 400,
        "window": "hann",
        "padding": "zero",
        "mel_scale": "slaney",
        "mel_area_norm": True,
        "log": "none",
        "log_floor": 0.0,
        "raise_to_dbfs": -30.0,
        "tail_samples": 320,
    }

    def __init__(self, config: Ge2eConfig, num_features: int) -> None:
        super().__init__()
        self.embedding_size = config.embedding_size
        self.num_features = num_features
        self.window, self.step = config.window_frames, config.step_frames
        self.min_coverage, self.tail = config.min_coverage, config.tail_frames
        self.min_frames = 1 + config.tail_frames
        self.lstm = nn.LSTM(num_features, config.hidden_size, config.num_layers, batch_first=True)
        self.linear = nn.Linear(config.hidden_size, config.embedding_size)

    def forward(self, features: Tensor) -> Tensor:
        require_features(features, self.num_features, self.min_frames)
        with no_autocast(features):
            windows = self.windows(at_least_float32(features))  # (B, P, window, F)
            _, (hidden, _) = self.lstm(windows.flatten(0, 1))
            each = functional.relu(self.linear(hidden[-1]))  # (B P, D)
            each = functional.normalize(each, dim=1).unflatten(0, windows.shape[:2])
            return functional.normalize(each.mean(dim=1), dim=1)

    def windows(self, features: Tensor) -> Tensor:
        """(B, F, T) -> (B, P, window_frames, F); what lies behind the clip is zero."""
        count = self.num_windows(features.shape[2])
        size = (count - 1) * self.step + self.window
        features = functional.pad(features, (0, max(0, size - features.shape[2])))[..., :size]
        return features.unfold(2, self.window, self.step).permute(0, 2, 3, 1)

    def num_windows(self, num_frames: int) -> int:
        """P for T frames, tail included."""
        length = num_frames - self.tail
        count = len(range(0, max(1, length - self.window + self.step + 1), self.step))
        last = (count - 1) * self.step
        # the first frame is centred on the first sample: a clip of n frames lasts n - 1 hops
        covered = (length - 1 - last) / self.window
        return count - 1 if count > 1 and covered < self.min_coverage else count

    @staticmethod
    def original_name(name: str) -> str:
        """The name of our tensor ``name`` in the shipped weights."""
        return name

    original_extras = ("similarity_weight", "similarity_bias")
    """not part of the network: scale and shift of the training loss"""

    @staticmethod
    def original_options(state: Mapping[str, Tensor]) -> Implied:
        """Sizes and mel bands, as the shapes in a checkpoint imply them."""
        if not {"lstm.weight_ih_l0", "linear.weight"} <= state.keys():
            return {}, {}
        size, hidden = state["linear.weight"].shape
        layers = sum(name.startswith("lstm.weight_ih_l") for name in state)
        options = {"hidden_size": hidden, "num_layers": layers, "embedding_size": size}
        return options, {"num_mels": state["lstm.weight_ih_l0"].shape[1]}
