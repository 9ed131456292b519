"""What is added to the loss of the head: reconstruction, and imitation of a teacher.

A term gives one value per clip; their mean, times a weight, is added to the loss of the head.
Shapes: B batch, D embedding, F features, T frames, K classes, N clips of the training data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor

from glottis.config import Config
from glottis.data.batch import Part
from glottis.errors import ConfigError
from glottis.losses.distillation import (
    cosine_distillation,
    kl_distillation,
    relational_distillation,
)
from glottis.models import Reconstructed, SpoofOutput
from glottis.train import distributed

Scores = Callable[[Tensor], Tensor]
Targets = Callable[[Tensor], Tensor]


class ReconstructionConfig(Config):
    """Mean squared error between what the decoder makes and what it should have made."""

    weight: float = Field(gt=0)
    """Factor of the error beside the loss of the head."""


class DistillationConfig(Config):
    """Learning from the outputs of a trained model on the same clips."""

    teacher: str
    """Checkpoint (or run folder) of the teacher."""
    kind: Literal["cosine", "kl", "relational"] = "cosine"
    """Directions of the embeddings, class probabilities, or distances between clips of a batch."""
    weight: float = Field(1.0, gt=0)
    """Factor of the term beside the loss of the head."""
    temperature: float | None = Field(None, gt=0)
    """Of the class probabilities (kl only); leave it out for 2."""
    cache: str | None = None
    """Folder for the teacher's outputs, to share them between runs; leave it out for the run's."""

    @model_validator(mode="after")
    def _fits(self) -> DistillationConfig:
        values = self.__dict__
        if values["temperature"] is not None and values["kind"] != "kl":
            raise ValueError(f"'temperature' belongs to kind kl, not to {values['kind']}")
        return self


class Term(Protocol):
    """One addition to the loss.

    name: in the log.  weight: factor of its mean.  compares: whether it compares the clips of a
    batch with each other.
    """

    name: str
    weight: float
    compares: bool

    def __call__(self, output: Any, part: Part, scores: Scores | None) -> Tensor:
        """(B,) values of a network's output; scores: class scores of embeddings by the head."""
        ...


class Reconstruction:
    """Squared error of a `Reconstructed`, averaged over features and frames."""

    name = "reconstruction"
    compares = False

    def __init__(self, config: ReconstructionConfig) -> None:
        self.weight = config.weight

    def __call__(self, output: Any, part: Part, scores: Scores | None) -> Tensor:
        assert isinstance(output, Reconstructed)
        error = output.reconstruction.float() - output.target.float()
        return error.square().mean(dim=(1, 2))


class Imitation:
    """Distance between the student's output and the teacher's on the same clip.

    targets: what the teacher says of the training clips with the numbers (B,): its (B, D)
    embeddings, or (B, K) class scores where kind is "kl".
    """

    name = "distillation"

    def __init__(self, config: DistillationConfig, targets: Targets) -> None:
        self.kind, self.weight = config.kind, config.weight
        self.compares = config.kind == "relational"
        self.temperature = config.temperature or 2.0
        self.targets = targets

    def __call__(self, output: Any, part: Part, scores: Scores | None) -> Tensor:
        own = output if torch.is_tensor(output) else output.embedding
        taught = self.targets(part.rows)
        if self.kind == "cosine":
            return cosine_distillation(own, taught)
        if self.kind == "relational":  # all clips of the batch, in all processes
            (own, taught), mine = distributed.gather_shares(own, taught)
            return relational_distillation(own, taught)[mine]
        if isinstance(output, SpoofOutput):
            return kl_distillation(output.logits, taught, self.temperature)
        assert scores is not None
        return kl_distillation(scores(own), taught, self.temperature)


def require_decoder(config: ReconstructionConfig | None, network: Any) -> None:
    """Raise `ConfigError` where a decoder would not be trained, or its loss has no decoder."""
    has = bool(getattr(network, "reconstruct", False))
    if has == (config is not None):
        return
    if has:
        raise ConfigError(
            "model.reconstruct is on, but nothing weighs the reconstruction",
            why="the decoder would be computed and never trained",
            fix="give reconstruction.weight (0.1 is a start), or set model.reconstruct=false",
            rule="O1",
        )
    raise ConfigError(
        "reconstruction.weight is given, but the network makes no reconstruction",
        fix="set model.reconstruct=true (lstm_autoencoder), or remove the section 'reconstruction'",
    )
