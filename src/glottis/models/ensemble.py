"""Several models as one: embeddings joined, countermeasure scores averaged.

    model = load_ensemble(["runs/a/checkpoints/best", "runs/b/checkpoints/best"])
    model.embed(files)   # (N, D), unit length

Members are models of one task that were trained on their own; nothing is learned here.  They hear
an utterance each in its own way (rate of the front end, window).

    concat   unit embeddings side by side, each times sqrt(w): the cosine of two such embeddings is
             the weighted mean of the members' cosines (weights add up to 1)
    mean     the weighted mean of unit embeddings, at unit length again; the members need one space:
             stages or averages of one training, not trainings from other initial weights

Scores of countermeasures are averaged as they are, so members whose classifiers are of different
kinds (logits and cosines) are refused: one of them would hardly count.

Shapes: B batch, S samples, N files, D embedding, K members.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.errors import ConfigError, ModelError
from glottis.models._interface import SpoofOutput
from glottis.models.io import load_model
from glottis.models.system import Detection, SpeakerModel, SpoofModel, Verification

Combine = Literal["concat", "mean"]


def combine_embeddings(
    embeddings: Sequence[Tensor], how: Combine = "concat", weights: Sequence[float] | None = None
) -> Tensor:
    """K times (N, D_k) embeddings of any length -> (N, sum D_k) or, of the mean, (N, D); length 1.

    weights: of the members, divided by their sum; None = all alike.
    """
    shares = _shares(len(embeddings), weights)
    units = [functional.normalize(item.float(), dim=1) for item in embeddings]
    if how == "concat":
        return torch.cat([share**0.5 * unit for share, unit in zip(shares, units, strict=True)], 1)
    if how != "mean":
        raise ConfigError(f"embeddings cannot be combined by '{how}'", fix="concat or mean")
    sizes = {item.shape[1] for item in embeddings}
    if len(sizes) > 1:
        raise ConfigError(
            f"a mean of embeddings with {', '.join(map(str, sorted(sizes)))} values",
            why="a mean needs members of one space",
            fix="combine by concat",
        )
    total = sum(share * unit for share, unit in zip(shares, units, strict=True))
    return functional.normalize(torch.as_tensor(total), dim=1)


class Ensemble(nn.Module):
    """K models of one task: (B, S) wave -> (B, D) unit embeddings, or a `SpoofOutput`.

    A countermeasure's logits are the weighted mean of the members' logits, its embedding theirs
    side by side.  Attributes: ``members``, ``task``, ``sample_rate``, ``embedding_size``,
    ``min_samples``.
    """

    def __init__(
        self,
        members: Sequence[SpeakerModel | SpoofModel],
        combine: Combine = "concat",
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not members:
            raise ModelError("an ensemble of no models", fix="give two or more")
        for what in ("task", "sample_rate"):
            values = sorted({str(getattr(member, what)) for member in members})
            if len(values) > 1:
                raise ModelError(
                    f"the members differ in {what}: {', '.join(values)}",
                    fix="join models of one task and one sample rate",
                )
        require_one_scale([member.classifier_kind for member in members])
        self.members: Any = nn.ModuleList(members)
        self.combine = combine
        self.weights = _shares(len(members), weights)
        self.task, self.sample_rate = members[0].task, members[0].sample_rate
        self.min_samples = max(member.min_samples for member in members)
        probe = [torch.ones(1, member.embedding_size) for member in members]
        kind: Combine = combine if self.task == "speaker" else "concat"
        self.embedding_size = combine_embeddings(probe, kind).shape[1]

    def forward(self, wave: Tensor) -> Tensor | SpoofOutput:
        outputs = [member(wave) for member in self.members]
        if self.task == "speaker":
            return combine_embeddings(outputs, self.combine, self.weights)
        logits = sum(w * out.logits for w, out in zip(self.weights, outputs, strict=True))
        embedding = combine_embeddings([out.embedding for out in outputs], "concat", self.weights)
        return SpoofOutput(embedding, torch.as_tensor(logits))

    def embed(self, paths: Sequence[str | Path]) -> Tensor:
        """(N, D) float32 embeddings of unit length, on the CPU, one row per file."""
        self._require("speaker")
        each = [member.embed(paths) for member in self.members]
        return combine_embeddings(each, self.combine, self.weights)

    def verify(self, first: str | Path, second: str | Path) -> Verification:
        """Compare two files: the cosine of their embeddings."""
        a, b = self.embed([first, second])
        return Verification(score=float(a @ b))

    def detect(self, path: str | Path) -> Detection:
        """Score one file: the weighted means of the members' scores and probabilities.

        So are the scores of its segments, if the members have windows of one length; else the file
        counts as one segment.
        """
        self._require("spoof")
        found = [member.detect(path) for member in self.members]
        pairs = list(zip(self.weights, found, strict=True))
        score = sum(w * item.score for w, item in pairs)
        seconds = max(item.segment_seconds for item in found)
        segments: tuple[float, ...] = (score,)
        if all(item.segment_seconds == seconds for item in found):
            columns = zip(*(item.segment_scores for item in found), strict=True)
            segments = tuple(
                sum(w * value for w, value in zip(self.weights, column, strict=True))
                for column in columns
            )
        known = [(w, item.probability) for w, item in pairs if item.probability is not None]
        whole = len(known) == len(pairs)
        return Detection(
            score=score,
            probability=sum(w * value for w, value in known) if whole else None,
            segment_scores=segments,
            segment_seconds=seconds,
        )

    def _require(self, task: str) -> None:
        if self.task != task:
            raise ModelError(f"the members are {self.task} models, this is for {task} models")


def load_ensemble(
    folders: Sequence[str | Path],
    combine: Combine = "concat",
    weights: Sequence[float] | None = None,
    device: str | torch.device = "cpu",
) -> Ensemble:
    """The models of several folders (see `load_model`) as one, in eval mode on ``device``."""
    return Ensemble([load_model(folder, device) for folder in folders], combine, weights).eval()


def require_one_scale(kinds: Sequence[str]) -> None:
    """Raise `ModelError` if the scores of members with these classifiers cannot be averaged."""
    if len(set(kinds)) > 1:
        raise ModelError(
            f"the members differ in their classifiers: {', '.join(kinds)}",
            why="a mean of logits and cosines is that of the logits: a cosine is at most 1",
            fix="score each on its own and join them: glottis score-metrics A B --fuse "
            "standardised --dev A_DEV --dev B_DEV",
        )


def _shares(count: int, weights: Sequence[float] | None) -> tuple[float, ...]:
    """Weights that add up to 1."""
    chosen = (1.0,) * count if weights is None else tuple(float(weight) for weight in weights)
    if len(chosen) != count or min(chosen) < 0 or not 0 < sum(chosen) < float("inf"):
        raise ConfigError(
            f"weights {', '.join(f'{w:g}' for w in chosen)} for {count} models",
            fix="give one number from 0 for each, not all of them 0",
        )
    return tuple(weight / sum(chosen) for weight in chosen)
