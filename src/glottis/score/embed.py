"""Every utterance through the model once, keyed by its id; batches hold equal lengths only.

    embeddings = embed_clips(model, trials.keys, source)   # speaker model
    scores = detect_clips(model, protocol.utterance, source)   # countermeasure

``source`` gives samples by position: a packed store or audio files (`glottis.data.source`).
N clips, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from glottis.audio import to_float
from glottis.data.source import ClipSource
from glottis.errors import ResultError
from glottis.models.inference import Window, infer
from glottis.rng import generator
from glottis.score._checks import Names, listed
from glottis.score.embeddings import Embeddings

__all__ = ["Embeddings", "Extraction", "detect_clips", "embed_clips", "output_clips"]

_TOLERANCE = 5e-3  # relative; TF32 and other batch sizes stay below, another file's vector does not


@dataclass(frozen=True)
class Extraction:
    """How clips go through a model.

    window: None = the model's own.  batch_seconds: audio per batch.  device: None = where the model
    is.  spot_checks: that many clips are computed again, alone, and must agree (rule E3).
    readers: threads that read ahead.  progress: called with (clips done, all clips).
    """

    window: Window | None = None
    batch_seconds: float = 120.0
    device: str | torch.device | None = None
    spot_checks: int = 8
    readers: int = 0
    progress: Callable[[int, int], None] | None = None


def embed_clips(
    model: Any, utterances: Names, source: ClipSource, how: Extraction | None = None
) -> Embeddings:
    """The (N, D) embeddings of N clips by a speaker model, rows in the order of ``utterances``.

    source: clip i is ``utterances[i]``, at the model's rate.
    """
    matrix = _collect(model, utterances, source, how or Extraction(), model.embedding_size, _whole)
    about = {"dims": list(model.dims)}
    return Embeddings([str(name) for name in utterances], matrix, about)


def detect_clips(
    model: Any, utterances: Names, source: ClipSource, how: Extraction | None = None
) -> npt.NDArray[np.float32]:
    """(N,) scores of N clips by a countermeasure, higher = bona fide (the bona fide logit)."""
    logits = _collect(model, utterances, source, how or Extraction(), 2, _logits)
    return logits[:, 1].copy()


def output_clips(
    model: Any, utterances: Names, source: ClipSource, how: Extraction | None = None
) -> npt.NDArray[np.float32]:
    """All that a model says of N clips: (N, D) embeddings, or (N, D + 2) with logits behind."""
    if model.task == "speaker":
        return embed_clips(model, utterances, source, how).matrix
    width = model.embedding_size + 2
    return _collect(model, utterances, source, how or Extraction(), width, _both)


def _whole(output: Any) -> Any:
    return output


def _both(output: Any) -> torch.Tensor:
    return torch.cat([output.embedding.float(), output.logits.float()], dim=1)


def _logits(output: Any) -> Any:
    return output.logits


def _collect(
    model: Any,
    utterances: Names,
    source: ClipSource,
    how: Extraction,
    width: int,
    pick: Callable[[Any], torch.Tensor],
) -> npt.NDArray[np.float32]:
    """(N, width): what ``pick`` takes from the output, in the order of the clips."""
    if source.sample_rate != model.sample_rate:
        raise ResultError(
            f"the clips are at {source.sample_rate} Hz, the model expects {model.sample_rate}",
            why="every embedding would be that of a faster or slower voice",
            fix="open the files, or pack them, at the model's rate",
            rule="P12",
        )
    total, done = len(utterances), 0
    result = np.full((total, width), np.nan, np.float32)
    for clips, output in _outputs(model, range(total), source, how):
        result[clips] = pick(output).float().cpu().numpy()
        done += len(clips)
        if how.progress is not None:
            how.progress(done, total)
    bad = np.flatnonzero(~np.isfinite(result).all(axis=1))
    if bad.size:
        raise ResultError(
            f"{bad.size} of {total} outputs are not finite: {listed(utterances, bad)}",
            why="an error rate over the rest would be that of another list",
            fix="look at these files (silence?) and at the weights (glottis inspect)",
            rule="E1",
        )
    _spot_check(model, utterances, source, how, result, pick)
    return result


def _outputs(
    model: Any, clips: Sequence[int], source: ClipSource, how: Extraction
) -> Iterator[tuple[list[int], Any]]:
    """(clips, output) batch by batch."""
    lengths = [source.num_samples(clip) for clip in clips]
    batches = infer(
        model,
        lengths,
        lambda item: to_float(source.read(clips[item], 0, lengths[item])),
        window=model.window if how.window is None else how.window,
        batch_seconds=how.batch_seconds,
        device=model.device if how.device is None else how.device,
        readers=how.readers,
    )
    for items, output in batches:
        yield [clips[item] for item in items], output


def _spot_check(
    model: Any,
    utterances: Names,
    source: ClipSource,
    how: Extraction,
    stored: npt.NDArray[np.float32],
    pick: Callable[[Any], torch.Tensor],
) -> None:
    """Some clips alone must give what is stored under their id; else `ResultError` (E3)."""
    count = min(how.spot_checks, len(utterances))
    chosen = generator(0, "spot check").choice(len(utterances), count, replace=False)
    wrong = []
    for clip in sorted(chosen.tolist()):
        for _, output in _outputs(model, [clip], source, how):
            alone = pick(output).float().cpu().numpy()[0]
            scale = float(np.linalg.norm(alone))
            if np.linalg.norm(alone - stored[clip]) > _TOLERANCE * scale:
                wrong.append(clip)
    if wrong:
        raise ResultError(
            f"{len(wrong)} of {count} clips give something else alone than in their batch: "
            f"{listed(utterances, np.array(wrong, np.int64))}",
            why="outputs are mixed up between files, or depend on the rest of the batch",
            fix="this is a bug of the model or of Glottis; report it with the model's name",
            rule="E3",
        )
