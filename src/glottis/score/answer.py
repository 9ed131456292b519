"""Answers about files: the score, the threshold it is compared with, and what speaks against it.

A file that holds nothing to judge (digital silence, less than 0.1 s) is refused: a model gives
a number for it, and the number says nothing.
The threshold is the one at the equal error rate of the development trials, stored in the card of
the checkpoint; a model without it (imported weights) gives scores and no decision.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glottis import audio
from glottis.errors import DataError, ModelError
from glottis.models import SpeakerModel, SpoofModel, load_model, read_card
from glottis.score.embed import Embeddings
from glottis.score.results import SYNTHETIC, SYNTHETIC_SOURCE

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (files done, all files)."""

FILES_AT_ONCE = 64  # between two calls of the progress
SHORT_SECONDS = 1.5  # below this a voice is hard to tell from one clip


@dataclass(frozen=True)
class Verification:
    """Whether two files hold the same voice.

    score: cosine.  threshold: at the development EER, or None.  decision: "same", "different" or
    None.  notes: what to know about the recordings.
    """

    first: str
    second: str
    score: float
    threshold: float | None
    decision: str | None
    development: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Lines for people."""
        lines = [f"score {self.score:.4f} (cosine)"]
        if self.threshold is None:
            lines.append("no decision: this model has no threshold from development trials")
        else:
            lines.append(f"decision: {self.decision} voice (threshold {self.threshold:.4f})")
            lines.append(f"threshold from: {self.development}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class Detection:
    """Whether one file is a live human; fields as in `Verification`."""

    file: str
    score: float
    threshold: float | None
    decision: str | None
    segments: int
    meaning: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def resolve_checkpoint(path: Path) -> Path:
    """The folder of a model: itself, or the best (else the latest) checkpoint of a run."""
    candidates = [path, path / "checkpoints" / "best", path / "checkpoints" / "latest"]
    for candidate in candidates:
        if (candidate / "card.json").exists():
            return candidate
    raise ModelError(
        f"{path} holds no model",
        fix="give a run folder, a folder such as runs/x/checkpoints/best, or an imported model",
    )


def verify_files(checkpoint: Path, first: Path, second: Path) -> Verification:
    """Compare two audio files."""
    model, threshold, development = _load(checkpoint, "speaker")
    assert isinstance(model, SpeakerModel)
    notes = [*_judgeable(first), *_judgeable(second)]
    a, b = model.embed([first, second])
    score = float(a @ b)
    return Verification(
        first=str(first),
        second=str(second),
        score=score,
        threshold=threshold,
        decision=_decide(score, threshold, "same", "different"),
        development=development,
        notes=tuple(notes),
    )


def detect_files(
    checkpoint: Path, files: Sequence[Path], progress: Progress | None = None
) -> list[Detection]:
    """Judge each audio file; one that cannot be judged is an `AudioError`, and nothing is said."""
    model, threshold, development = _load(checkpoint, "spoof")
    assert isinstance(model, SpoofModel)
    meaning = (
        f"threshold from: {development}"
        if threshold is not None
        else "no decision: this model has no threshold from development data"
    )
    answers = []
    for path in files:
        notes = _judgeable(path)
        found = model.detect(path)
        answers.append(
            Detection(
                file=str(path),
                score=found.score,
                threshold=threshold,
                decision=_decide(found.score, threshold, "bonafide", "spoof"),
                segments=len(found.segment_scores),
                meaning=meaning,
                notes=tuple(notes),
            )
        )
        if progress is not None:
            progress(len(answers), len(files))
    return answers


def embed_files(
    checkpoint: Path,
    files: Sequence[Path],
    dim: int | None = None,
    progress: Progress | None = None,
) -> Embeddings:
    """Unit-length embeddings of audio files, keyed by their paths; what is odd about a file is
    logged."""
    for path in files:
        if any("\ud800" <= letter <= "\udfff" for letter in str(path)):  # bytes that are no text
            raise DataError(
                f"the name {str(path)!a} is not text",
                why="embeddings are kept by the names of their files",
                fix="rename the file",
            )
    model, _, _ = _load(checkpoint, "speaker")
    assert isinstance(model, SpeakerModel)
    parts = []
    for start in range(0, len(files), FILES_AT_ONCE):
        some = list(files[start : start + FILES_AT_ONCE])
        for note in (note for path in some for note in _judgeable(path)):
            _log.warning("%s", note)
        parts.append(model.embed(some, dim=dim).numpy().astype(np.float32))
        if progress is not None:
            progress(start + len(some), len(files))
    return Embeddings([str(path) for path in files], np.concatenate(parts))


def _load(checkpoint: Path, task: str) -> tuple[SpeakerModel | SpoofModel, float | None, str]:
    folder = resolve_checkpoint(checkpoint)
    model, card = load_model(folder), read_card(folder)
    if model.task != task:
        verb = "detect" if model.task == "spoof" else "verify"
        raise ModelError(
            f"{folder} is a {model.task} model; this needs a {task} model",
            fix=f"use 'glottis {verb}' for this model",
        )
    development = card["extra"].get("development") or {}
    threshold = development.get("threshold")
    text = development.get("text", "unknown development data")
    data = card["extra"].get("data") or {}
    sources = ((data.get("train") or {}).get("by") or {}).get("source") or {}
    if set(sources) == {SYNTHETIC_SOURCE}:
        text = f"{text}; {SYNTHETIC}"
    return model, threshold, text


def _decide(score: float, threshold: float | None, above: str, below: str) -> str | None:
    if threshold is None:
        return None
    return above if score >= threshold else below


def _judgeable(path: Path) -> list[str]:
    """What to know about a recording; `AudioError` if there is nothing in it to judge."""
    clip = audio.require_sound(audio.decode(path), path)
    notes = [f"{path}: {warning}" for warning in clip.warnings]
    if clip.duration_s < SHORT_SECONDS:
        notes.append(f"{path}: only {clip.duration_s:.2f} s of audio; expect more errors")
    return notes
