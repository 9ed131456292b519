"""What networks have in common: outputs that are more than one tensor, and checks of an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from glottis.errors import ModelError

_MOST_FEATURES = 512  # of which `require_sizes` thinks


class SpoofOutput(NamedTuple):
    """What a countermeasure says about a batch.

    embedding: (B, D), the vector before the classifier.
    logits: (B, 2), ``[:, 0]`` spoof and ``[:, 1]`` bona fide.
    """

    embedding: Tensor
    logits: Tensor

    @property
    def score(self) -> Tensor:
        """(B,), higher = bona fide: the bona fide logit, as the published AASIST scores."""
        return self.logits[:, 1]

    @property
    def probability(self) -> Tensor:
        """(B,), softmax probability of bona fide under the class weights of the training; only of
        logits, not of cosines."""
        return torch.softmax(self.logits, dim=1)[:, 1]


class Reconstructed(NamedTuple):
    """What a speaker network with a decoder gives in training, for a reconstruction loss.

    embedding: (B, D).  reconstruction: (B, F, T), what the decoder made.  target: (B, F, T), what
    it should have made, detached and in its range.  code: (B, C, T), what the embedding and the
    reconstruction are both made from.
    """

    embedding: Tensor
    reconstruction: Tensor
    target: Tensor
    code: Tensor


def require_wave(wave: Tensor, min_samples: int) -> None:
    """Raise `ModelError` unless ``wave`` is (B, S) floating point with S >= min_samples."""
    if wave.ndim != 2 or not wave.is_floating_point():
        raise ModelError(
            f"the input has shape {tuple(wave.shape)} and type {wave.dtype}",
            fix="pass (batch, samples) float32 in [-1, 1], one channel",
        )
    if wave.shape[1] < min_samples:
        raise ModelError(
            f"the input has {wave.shape[1]} samples; this model needs at least {min_samples}",
            fix="repeat or pad the clip, or use a longer crop",
        )


def require_features(features: Tensor, num_features: int, min_frames: int) -> None:
    """Raise `ModelError` unless ``features`` is (B, num_features, T) with T >= min_frames."""
    if features.ndim != 3 or features.shape[1] != num_features:
        raise ModelError(
            f"the features have shape {tuple(features.shape)}",
            fix=f"this network takes (batch, {num_features}, frames)",
        )
    if features.shape[2] < min_frames:
        raise ModelError(
            f"the input has {features.shape[2]} frames; this network needs at least {min_frames}",
            fix="repeat or pad the clip, or use a longer crop",
        )


def require_sizes(check: Callable[[int], None], num_features: int) -> None:
    """``check(num_features)``; its `ModelError` is told with the nearest numbers that pass.

    check: raises `ModelError` for a number of features that a network cannot divide as it has to.
    """
    try:
        check(num_features)
    except ModelError as error:
        nearest = sorted(range(1, _MOST_FEATURES + 1), key=lambda n: abs(n - num_features))
        good = [n for n in nearest if _passes(check, n)][:2]
        if not good:
            raise
        raise ModelError(
            error.seen,
            why=f"the front end gives {num_features} features",
            fix=f"let it give {' or '.join(map(str, sorted(good)))}, or {error.fix}",
        ) from None


def _passes(check: Callable[[int], None], num_features: int) -> bool:
    try:
        check(num_features)
    except ModelError:
        return False
    return True
