"""A model is a network with its front end: (B, S) waveform in, embedding or score out.

    model = create_model("resnetse34l", embedding_size=192, features={"num_mels": 64})
    model(wave)                    # (B, 192)
    create_model("aasist")(wave)   # SpoofOutput(embedding (B, 160), logits (B, 2))

Shapes: B batch, S samples, D embedding, N files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glottis import audio
from glottis.config import Config, to_tree
from glottis.configfile import merge
from glottis.errors import ConfigError, ModelError
from glottis.features import FEATURES, FrontEnd, build_features
from glottis.models._interface import SpoofOutput, require_wave
from glottis.models._registry import MODELS
from glottis.models.inference import Window, infer
from glottis.models.parts.classifier import CosineClassifier, Kind
from glottis.models.sizes import require_trained

_FILES_AT_ONCE = 64  # decoded together by `embed`, so that equal lengths can share a batch


class Model(nn.Module):
    """A network joined with its front end.

    Attributes: ``network``, ``frontend`` (None for a waveform network), ``name``, ``task``,
    ``config``, ``features_config``, ``sample_rate``, ``embedding_size``, ``min_samples``,
    ``window`` (what it hears of an utterance at test time), ``classifier_kind`` (of `build_model`),
    ``adapters`` (rank, alpha ... of those that a training has put beside its layers),
    ``dims`` (the sizes that its first values were trained to have, growing; the last is the whole).
    """

    classifier_kind: Kind = "linear"
    adapters: Mapping[str, Any] | None = None

    def __init__(
        self,
        network: Any,
        frontend: FrontEnd | None,
        config: Config,
        features_config: Config | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.frontend = frontend
        self.config: Config = getattr(network, "resolved_config", config)
        self.features_config = features_config
        self.name = str(to_tree(config)["name"])
        self.task: str = network.task
        self.embedding_size: int = network.embedding_size
        self.dims: tuple[int, ...] = (network.embedding_size,)
        self.sample_rate: int = network.sample_rate if frontend is None else frontend.sample_rate
        self.min_samples: int = (
            network.min_samples if frontend is None else _samples_for(frontend, network.min_frames)
        )
        self.window = Window(seconds=network.window_seconds)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.network.parameters()).device

    @property
    def num_parameters(self) -> int:
        """Values of all parameters, those that are kept but not computed included.

        Not of ``adapters``: loaded, they are part of the layers.
        """
        counted = [p for name, p in self.named_parameters() if not self._adapts(name)]
        return sum(parameter.numel() for parameter in counted)

    def _adapts(self, name: str) -> bool:
        return self.adapters is not None and ".lora_" in name

    def draw(self, generator: np.random.Generator) -> dict[str, Tensor]:
        """Random tensors for one training step, to be passed on: ``model(wave, **model.draw(g))``.

        Empty for a network that draws nothing, and in eval mode.
        """
        if not self.training or not hasattr(self.network, "draw"):
            return {}
        drawn: dict[str, Tensor] = self.network.draw(generator)
        return drawn

    def forward(self, wave: Tensor, **drawn: Tensor) -> Any:
        """wave: (B, S) float32 in [-1, 1], S >= min_samples; drawn: from `draw`."""
        require_wave(wave, self.min_samples)
        return self.network(wave if self.frontend is None else self.frontend(wave), **drawn)


def _heard(path: str | Path, sample_rate: int) -> NDArray[np.float32]:
    """(S,) samples of a file; `AudioError` if there is nothing in it to judge."""
    return audio.require_sound(audio.load(Path(path), sample_rate), path).samples


class SpeakerModel(Model):
    """(B, S) waveform -> (B, D) embeddings, not normalised."""

    def embed(self, paths: Sequence[str | Path], dim: int | None = None) -> Tensor:
        """(N, D) float32 embeddings of unit length, on the CPU, one row per file.

        dim: only the first ``dim`` values, then unit length; one of ``dims``.
        """
        size = self.embedding_size if dim is None else require_trained(dim, self.dims)
        result = torch.empty(len(paths), size)
        for start in range(0, len(paths), _FILES_AT_ONCE):
            some = paths[start : start + _FILES_AT_ONCE]
            clips = [_heard(path, self.sample_rate) for path in some]
            lengths = [len(clip) for clip in clips]
            outputs = infer(
                self, lengths, clips.__getitem__, window=self.window, device=self.device
            )
            for items, output in outputs:
                rows = [start + item for item in items]
                result[rows] = output[:, :size].float().cpu()
        return nn.functional.normalize(result, dim=1)

    def verify(self, first: str | Path, second: str | Path, dim: int | None = None) -> Verification:
        """Compare two files: the cosine of their embeddings; see `Verification`."""
        a, b = self.embed([first, second], dim)
        return Verification(score=float(a @ b))


class SpoofModel(Model):
    """(B, S) waveform -> `SpoofOutput`: embedding (B, D) and logits (B, 2), 1 = bona fide."""

    def detect(self, path: str | Path) -> Detection:
        """Score one file, window by window; see `Detection`.

        The file is cut into consecutive windows of the model's length; a rest of at least half a
        window counts as one more (repeated to the full length), a shorter one is left out.
        """
        clip = _heard(path, self.sample_rate)
        pieces = segments(clip, self.window.samples(len(clip), self))
        outputs = infer(
            self,
            [len(piece) for piece in pieces],
            pieces.__getitem__,
            window=self.window,
            device=self.device,
        )
        scores, probabilities = torch.zeros(len(pieces)), torch.zeros(len(pieces))
        for items, output in outputs:
            scores[items] = output.score.float().cpu()
            probabilities[items] = output.probability.float().cpu()
        return Detection(
            score=float(scores.mean()),
            probability=float(probabilities.mean()) if self.classifier_kind == "linear" else None,
            segment_scores=tuple(scores.tolist()),
            segment_seconds=self.window.samples(len(clip), self) / self.sample_rate,
        )


@dataclass(frozen=True)
class Verification:
    """Two utterances compared.

    score: cosine, -1 to 1, higher = the same voice.  What value decides depends on the model and
    the recordings: calibrate on your own trials.
    """

    score: float


@dataclass(frozen=True)
class Detection:
    """One utterance judged.

    score: mean over its segments of the bona fide logit, higher = bona fide.
    probability: mean softmax probability of bona fide, as weighted in training: not calibrated.
    None where the score is a cosine, which is no logarithm of a probability.
    segment_scores: one per window of ``segment_seconds``, in order of time.
    """

    score: float
    probability: float | None
    segment_scores: tuple[float, ...]
    segment_seconds: float


def create_model(
    name: str,
    *,
    features: Mapping[str, Any] | None = None,
    seed: int | None = None,
    **options: Any,
) -> SpeakerModel | SpoofModel:
    """A registered network with its front end, at its initial weights.

    options: fields of the network's config.  features: fields of the front end, over the network's
    default (another ``name`` replaces it).  seed: see `build_model`.
    """
    target = MODELS[name].target
    config = MODELS.config(name, **options)
    return build_model(config, default_features(target, features), seed=seed)


def default_features(target: Any, changes: Mapping[str, Any] | None = None) -> Config | None:
    """The front-end config of a network class, with changes; None for a waveform network."""
    if target.input == "wave":
        if changes:
            raise ConfigError(
                f"{target.__name__} takes the waveform itself, but a front end was given",
                fix="remove the section 'features'",
            )
        return None
    section = merge({"features": target.default_features}, {"features": dict(changes or {})})
    return FEATURES.config(**section["features"])


def build_model(
    config: Config,
    features_config: Config | None = None,
    *,
    seed: int | None = None,
    classifier: Kind = "linear",
) -> SpeakerModel | SpoofModel:
    """The model that a recipe describes.

    features_config: None takes the network's default.  seed: of the initial weights; None draws
    them from torch's global generator, like any module.  classifier: of a countermeasure; "linear"
    is the network's own, the others take its place (see `CosineClassifier`).
    """
    entry = MODELS.entry_of(config)
    target = entry.target
    _require_classifier(classifier, entry.name, target.task)
    if features_config is None:
        features_config = default_features(target)
    elif target.input == "wave":
        default_features(target, to_tree(features_config))  # raises
    with _seeded(seed):
        frontend = None if features_config is None else build_features(features_config)
        arguments = () if frontend is None else (frontend.num_features,)
        network = target(config, *arguments)
        if target.task == "speaker":
            return SpeakerModel(network, frontend, config, features_config)
        if classifier != "linear":
            network.classifier = CosineClassifier(network.embedding_size, classifier)
        model = SpoofModel(network, frontend, config, features_config)
        model.classifier_kind = classifier
        return model


def _require_classifier(kind: str, name: str, task: str) -> None:
    """Raise `ConfigError` for a kind that does not exist, or that a network of this task lacks."""
    kinds = get_args(Kind)
    if kind not in kinds:
        raise ConfigError(f"there is no classifier '{kind}'", fix=f"known: {', '.join(kinds)}")
    if kind != "linear" and task != "spoof":
        raise ConfigError(
            f"{name} is no countermeasure: it has no classifier that '{kind}' could replace",
            fix="use a loss for embeddings, or a network with the task 'spoof'",
        )


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """torch's global generator at ``seed``, and afterwards where it was."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def segments(clip: np.ndarray, size: int) -> list[np.ndarray]:
    """Consecutive windows of ``size`` samples; a rest of at least half a window is one more."""
    count = max(1, len(clip) // size + (len(clip) % size >= (size + 1) // 2))
    return [clip[i * size : (i + 1) * size] for i in range(count)]


def _samples_for(frontend: FrontEnd, min_frames: int) -> int:
    """The fewest samples that give ``min_frames`` frames."""
    low, high = frontend.min_samples, frontend.min_samples + min_frames * frontend.hop_samples
    if frontend.num_frames(high) < min_frames:
        raise ModelError(f"the front end gives no {min_frames} frames from {high} samples")
    while low < high:
        middle = (low + high) // 2
        if frontend.num_frames(middle) >= min_frames:
            high = middle
        else:
            low = middle + 1
    return low


__all__ = ["Model", "SpeakerModel", "SpoofModel", "SpoofOutput", "build_model", "create_model"]
