"""Answers about files: the score, the threshold it is compared with, and what speaks against it.

A file that holds nothing to judge (digital silence, less than 0.1 s) is refused: a model gives
a number for it, and the number says nothing.
The threshold is the one at the equal error rate of the development trials, stored in the card of
the checkpoint; a model without it (imported weights) gives scores and no decision.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glottis import audio
from glottis.errors import DataError, ModelError
from glottis.models import SpeakerModel, SpoofModel, load_model, read_card
from glottis.models.sizes import chosen_sizes
from glottis.score.calibration import Calibration, calibration_of
from glottis.score.embed import Embeddings
from glottis.score.results import SYNTHETIC, SYNTHETIC_SOURCE

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (files done, all files)."""

FILES_AT_ONCE = 64  # between two calls of the progress
SHORT_SECONDS = 1.5  # below this a voice is hard to tell from one clip


@dataclass(frozen=True)
class Compared:
    """Two embeddings of one size.

    dim: values that are compared.  score: cosine.  threshold: at the development EER of that size,
    or None.  decision: "same", "different" or None.
    """

    dim: int
    score: float
    threshold: float | None
    decision: str | None


@dataclass(frozen=True)
class Verification:
    """Whether two files hold the same voice.

    score, threshold, decision: of the largest of ``sizes`` (see `Compared`).  notes: what to know
    about the recordings.  log_likelihood_ratio: natural, of a calibrated model and its whole
    embedding.
    """

    first: str
    second: str
    score: float
    threshold: float | None
    decision: str | None
    development: str
    notes: tuple[str, ...]
    sizes: tuple[Compared, ...] = ()
    log_likelihood_ratio: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Lines for people."""
        lines = []
        for one in self.sizes:
            of = f", first {one.dim} values" if len(self.sizes) > 1 else ""
            lines.append(f"score {one.score:.4f} (cosine{of})")
            if one.threshold is not None:
                lines.append(f"decision: {one.decision} voice (threshold {one.threshold:.4f})")
        if self.threshold is None:
            lines.append("no decision: this model has no threshold from development trials")
        else:
            lines.append(f"threshold from: {self.development}")
        if self.log_likelihood_ratio is not None:
            lines.append(f"log-likelihood ratio {self.log_likelihood_ratio:.2f} (same : different)")
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
    log_likelihood_ratio: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def resolve_checkpoint(path: Path) -> Path:
    """The folder of a model: itself, or that of a run: what it chose, else the best or latest."""
    candidates = [
        path,
        *(path / "checkpoints" / name for name in (*_chosen(path), "best", "latest")),
    ]
    for candidate in candidates:
        if (candidate / "card.json").exists():
            return candidate
    raise ModelError(
        f"{path} holds no model",
        fix="give a run folder, a folder such as runs/x/checkpoints/best, or an imported model",
    )


def _chosen(run: Path) -> list[str]:
    """The name of the checkpoint that a finished run says is its own."""
    file = run / "finished.json"
    if not file.is_file():
        return []
    try:
        return [Path(json.loads(file.read_text(encoding="utf-8"))["checkpoint"]).name]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{file} cannot be read: {error!r}",
            why="it says which checkpoint of the run to take",
            fix=f"give the folder of a checkpoint, such as {run}/checkpoints/best",
        ) from error


def verify_files(
    checkpoint: Path, first: Path, second: Path, dims: str | None = None
) -> Verification:
    """Compare two audio files, with every size that ``dims`` asks for ("64,128", "all")."""
    model, thresholds, development, calibration = _load(checkpoint, "speaker")
    assert isinstance(model, SpeakerModel)
    sizes = chosen_sizes(dims, model.dims)
    notes = [*_judgeable(first), *_judgeable(second)]
    both = model.embed([first, second])
    compared = []
    for size in sizes:
        a, b = torch.nn.functional.normalize(both[:, :size], dim=1)
        score, limit = float(a @ b), thresholds.get(size)
        decision = decide(score, limit, "same", "different")
        compared.append(Compared(size, score, limit, decision))
    largest = compared[-1]
    return Verification(
        first=str(first),
        second=str(second),
        score=largest.score,
        threshold=largest.threshold,
        decision=largest.decision,
        development=development,
        notes=tuple(notes),
        sizes=tuple(compared),
        log_likelihood_ratio=_ratio(
            calibration if largest.dim == model.embedding_size else None, largest.score
        ),
    )


def detect_files(
    checkpoint: Path, files: Sequence[Path], progress: Progress | None = None
) -> list[Detection]:
    """Judge each audio file; one that cannot be judged is an `AudioError`, and nothing is said."""
    model, thresholds, development, calibration = _load(checkpoint, "spoof")
    assert isinstance(model, SpoofModel)
    threshold = thresholds.get(model.embedding_size)
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
                decision=decide(found.score, threshold, "bonafide", "spoof"),
                segments=len(found.segment_scores),
                meaning=meaning,
                notes=tuple(notes),
                log_likelihood_ratio=_ratio(calibration, found.score),
            )
        )
        if progress is not None:
            progress(len(answers), len(files))
    return answers


def embed_files(
    checkpoint: Path,
    files: Sequence[Path],
    dims: str | None = None,
    progress: Progress | None = None,
) -> list[Embeddings]:
    """Unit-length embeddings of audio files, keyed by their paths, in every size that ``dims`` asks
    for ("64,128", "all"); what is odd about a file is logged."""
    for path in files:
        if any("\ud800" <= letter <= "\udfff" for letter in str(path)):  # bytes that are no text
            raise DataError(
                f"the name {str(path)!a} is not text",
                why="embeddings are kept by the names of their files",
                fix="rename the file",
            )
    model, _, _, _ = _load(checkpoint, "speaker")
    assert isinstance(model, SpeakerModel)
    card = read_card(resolve_checkpoint(checkpoint))
    sizes = chosen_sizes(dims, model.dims)
    about = {"model": card["name"], "weights_sha256": card["weights_sha256"]}
    parts = []
    for start in range(0, len(files), FILES_AT_ONCE):
        some = list(files[start : start + FILES_AT_ONCE])
        for note in (note for path in some for note in _judgeable(path)):
            _log.warning("%s", note)
        parts.append(model.embed(some).numpy().astype(np.float32))
        if progress is not None:
            progress(start + len(some), len(files))
    names = [str(path) for path in files]
    whole = Embeddings(names, np.concatenate(parts), {**about, "dims": list(model.dims)})
    return [whole if size == model.embedding_size else whole.dim(size) for size in sizes]


def _load(
    checkpoint: Path, task: str
) -> tuple[SpeakerModel | SpoofModel, Mapping[int, float], str, Calibration | None]:
    """The model, its thresholds by size of the embedding, what they were measured on, and what
    makes its scores likelihood ratios."""
    folder = resolve_checkpoint(checkpoint)
    model, card = load_model(folder), read_card(folder)
    if model.task != task:
        verb = "detect" if model.task == "spoof" else "verify"
        raise ModelError(
            f"{folder} is a {model.task} model; this needs a {task} model",
            fix=f"use 'glottis {verb}' for this model",
        )
    development = card["extra"].get("development") or {}
    text = development.get("text", "unknown development data")
    data = card["extra"].get("data") or {}
    sources = ((data.get("train") or {}).get("by") or {}).get("source") or {}
    if set(sources) == {SYNTHETIC_SOURCE}:
        text = f"{text}; {SYNTHETIC}"
    return model, thresholds_of(card), text, calibration_of(card)


def _ratio(calibration: Calibration | None, score: float) -> float | None:
    return None if calibration is None else float(calibration(score))


def thresholds_of(card: Mapping[str, Any]) -> dict[int, float]:
    """The thresholds in the card of a checkpoint, by size of the embedding; empty without any."""
    development = card["extra"].get("development") or {}
    found = {int(size): value for size, value in (development.get("thresholds") or {}).items()}
    if development.get("threshold") is not None:
        found[card["embedding_size"]] = development["threshold"]
    return found


def decide(score: float, threshold: float | None, above: str, below: str) -> str | None:
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
