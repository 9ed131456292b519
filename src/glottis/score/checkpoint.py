"""A checkpoint on a list: every clip through the model once, every trial scored, one result.

Several checkpoints are an ensemble: embeddings joined (see `glottis.models.ensemble`), scores of
countermeasures averaged.
The list that chose the checkpoint is recognised by its hash: its number is then a development
number and says so.  Clips that the manifest calls training data are refused (rule P1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glottis.data import (
    DevelopmentProtocol,
    DevelopmentTrials,
    EvaluationProtocol,
    EvaluationTrials,
    Manifest,
    Protocol,
    Trials,
    require_protocol,
    require_trials,
)
from glottis.errors import ConfigError, DataError
from glottis.models import Window, load_model, read_card
from glottis.models.ensemble import Combine, combine_embeddings, require_one_scale
from glottis.models.sizes import chosen_sizes
from glottis.score._checks import Names
from glottis.score.answer import resolve_checkpoint
from glottis.score.calibration import calibration_of
from glottis.score.clips import Clips
from glottis.score.cosine import score_trials
from glottis.score.dimensions import dimension_cells
from glottis.score.embed import Embeddings, Extraction, detect_clips, embed_clips
from glottis.score.evaluate import evaluate_speaker, evaluate_spoof
from glottis.score.parts import Resampled
from glottis.score.results import SYNTHETIC, SYNTHETIC_SOURCE, Result
from glottis.score.score_files import write_cm_scores, write_trial_scores

DEVELOPMENT_NOTE = (
    "these trials chose the checkpoint: this is a development number, not an evaluation result"
)


@dataclass(frozen=True)
class Evaluated:
    """A result with what it was computed from.  scores: (N,) in the order of the list."""

    result: Result
    data: Trials | Protocol
    scores: np.ndarray
    positive: np.ndarray

    def write_scores(self, path: Path) -> None:
        """The scores in the layout of the task."""
        if isinstance(self.data, Trials):
            write_trial_scores(path, self.data, self.scores)
        else:
            write_cm_scores(path, self.data, self.scores)


def evaluate_checkpoint(
    checkpoint: Path | Sequence[Path],
    clips: Clips,
    *,
    combine: Combine = "concat",
    dims: str | None = None,
    trials: Path | None = None,
    protocol: Path | None = None,
    conditions: Sequence[str] = ("source",),
    device: str = "cpu",
    readers: int = 2,
    how: Resampled | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluated:
    """EER, costs and tables of a model, or of several as one, on a trial list or a protocol.

    combine: how the embeddings of several speaker models become one.
    dims: sizes of a Matryoshka embedding ("64,128", "all"): the result is that of the largest, with
    a table of all of them beside the whole embedding.
    conditions: columns of the manifest to make a table by.
    progress: called with (clips done, all clips).
    """
    paths = [checkpoint] if isinstance(checkpoint, Path) else list(checkpoint)
    folders = [resolve_checkpoint(path) for path in paths]
    cards = [read_card(folder) for folder in folders]
    task = _task(folders, cards)
    _require_combination(combine, task, len(folders))
    require_one_scale([str(card.get("classifier", "linear")) for card in cards])
    _require_sizes(dims, task, cards)
    wanted = {"speaker": trials, "spoof": protocol}[task]
    if wanted is None or (trials is None) == (protocol is None):
        option = {"speaker": "--trials", "spoof": "--protocol"}[task]
        raise ConfigError(
            f"{folders[0]} is a {task} model; it is evaluated with {option} FILE",
            fix=f"give {option} and nothing else",
        )
    given, selected = _read(wanted, task, cards)
    keys: Names = given.keys if isinstance(given, Trials) else given.utterance
    pattern = "{utterance}" if isinstance(given, Trials) else "{utterance}.flac"
    clips = clips.for_list(keys, given.source, pattern)
    known = _known(given, clips.manifest, conditions)
    outputs: list[Any] = []
    scores: np.ndarray
    for number, (folder, card) in enumerate(zip(folders, cards, strict=True)):
        model = load_model(folder, device)
        source = clips.source(keys, known.rows, model.sample_rate)
        extraction = Extraction(
            window=_window(card),
            device=device,
            readers=readers,
            progress=_part(progress, number, len(folders)),
        )
        compute = embed_clips if task == "speaker" else detect_clips
        outputs.append(compute(model, keys, source, extraction))
    runs = [str(card["extra"]["run_id"]) for card in cards if card["extra"].get("run_id")]
    # joined scores of several models are others than those that one of them was calibrated on
    calibration = calibration_of(cards[0]) if len(cards) == 1 else None
    how = replace(how or Resampled(), run_id=" + ".join(runs) or None)
    result: Result
    if isinstance(given, Trials):
        joined = _joined(outputs, combine)
        sizes = chosen_sizes(dims, joined.dims)
        cut = joined if sizes[-1] == joined.dims[-1] else joined.dim(sizes[-1])
        raw = score_trials(cut, given)
        if sizes[-1] != joined.dims[-1]:
            calibration = None  # it is of the whole embedding
        calibrated = calibration is not None
        scores = calibration(raw) if calibration else raw
        result = evaluate_speaker(
            scores, given, known.speakers, known.tables, calibrated=calibrated, how=how
        )
        if sizes != joined.dims[-1:]:
            cells = dimension_cells(joined, given, known.speakers, sizes, how)
            note = f"embeddings of {sizes[-1]} of {joined.dims[-1]} values"
            result = replace(result, cells=(*cells, *result.cells), notes=(note, *result.notes))
        positive = given.target
    else:
        raw = np.stack(outputs).mean(axis=0, dtype=np.float64).astype(np.float32)
        calibrated = calibration is not None
        scores = calibration(raw) if calibration else raw
        result = evaluate_spoof(scores, given, known.tables, calibrated=calibrated, how=how)
        positive = given.bonafide
    notes = [SYNTHETIC] if known.synthetic else []
    if len(folders) > 1:
        means = f"embeddings joined by {combine}" if task == "speaker" else "mean of the scores"
        notes.append(f"ensemble of {len(folders)} models ({means}): {', '.join(map(str, paths))}")
        notes += _other_manifests(cards, clips.manifest)
    notes += [DEVELOPMENT_NOTE] if selected else []
    if calibration is not None:
        same = calibration.list_sha256 == given.sha256
        notes.append(
            "scores and thresholds are log-likelihood ratios, calibrated on "
            f"{'this very list' if same else calibration.list}; EER and minDCF do not depend on it"
        )
    notes += _remarks(clips, isinstance(given, Trials), conditions)
    result = replace(result, notes=(*notes, *result.notes))
    return Evaluated(result, given, scores, positive)


def _task(folders: Sequence[Path], cards: Sequence[Mapping[str, Any]]) -> str:
    """The task of all models."""
    tasks = [str(card["task"]) for card in cards]
    if len(set(tasks)) > 1:
        shown = ", ".join(f"{f} ({t})" for f, t in zip(folders, tasks, strict=True))
        raise ConfigError(
            f"models of different tasks cannot be one: {shown}",
            fix="give speaker models only, or countermeasures only",
        )
    return tasks[0]


def _require_combination(combine: Combine, task: str, count: int) -> None:
    """What has no effect is an error."""
    if combine != "concat" and (count == 1 or task == "spoof"):
        shown = "one model" if count == 1 else "countermeasures"
        raise ConfigError(
            f"'{combine}' joins embeddings of several speaker models; these are {shown}",
            why="a choice without an effect is not the one that was meant",
            fix="leave --combine out",
        )


def _require_sizes(dims: str | None, task: str, cards: Sequence[Mapping[str, Any]]) -> None:
    """Sizes are those of one speaker model; a size that was not trained is refused here."""
    if dims is None:
        return
    if task == "spoof" or len(cards) > 1:
        raise ConfigError(
            f"--dim with {'several models' if len(cards) > 1 else 'a countermeasure'}",
            why="only the embedding of one speaker model has sizes that were trained",
            fix="leave --dim out",
        )
    card = cards[0]
    chosen_sizes(dims, card.get("dims") or [card["embedding_size"]])


def _hashes(card: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the files that defined the data of a training; empty for imported weights."""
    return (card["extra"].get("data") or {}).get("hashes") or {}


def _other_manifests(cards: Sequence[Mapping[str, Any]], manifest: Manifest | None) -> list[str]:
    """A remark if one manifest cannot tell what all models were trained on."""
    if manifest is None or len({_hashes(card).get("manifest") for card in cards}) == 1:
        return []
    return [
        "the models were trained on different manifests; clips of the training data are noticed "
        "only where the manifest used here says so"
    ]


def _joined(outputs: Sequence[Embeddings], combine: Combine) -> Embeddings:
    if len(outputs) == 1:
        return outputs[0]
    matrices = [torch.from_numpy(output.matrix) for output in outputs]
    return Embeddings(outputs[0].utterances, combine_embeddings(matrices, combine).numpy())


def _part(
    progress: Callable[[int, int], None] | None, number: int, count: int
) -> Callable[[int, int], None] | None:
    """The progress of one of ``count`` models, of the whole."""
    if progress is None:
        return None
    return lambda done, total: progress(number * total + done, count * total)


@dataclass(frozen=True)
class _Known:
    """What the manifest says of the keys of a list, in their order; empty without a manifest."""

    rows: Manifest | None = None
    speakers: Names | None = None
    tables: Mapping[str, Names] | None = None

    @property
    def synthetic(self) -> bool:
        """No clip is of a person."""
        return self.rows is not None and set(self.rows.column("source")) == {SYNTHETIC_SOURCE}


def _read(
    path: Path, task: str, cards: Sequence[Mapping[str, Any]]
) -> tuple[Trials | Protocol, bool]:
    """The list in the type of its role, and whether it chose one of the checkpoints."""
    kinds: tuple[type[Trials | Protocol], type[Trials | Protocol]] = (
        (EvaluationTrials, DevelopmentTrials)
        if task == "speaker"
        else (EvaluationProtocol, DevelopmentProtocol)
    )
    given = kinds[0].read(path)
    if isinstance(given, Trials) and given.spoof.any():
        raise DataError(
            f"{path}: {int(given.spoof.sum())} of {len(given)} trials are spoof trials",
            why="they are neither targets nor other speakers; a speaker model alone is measured "
            "without them",
            fix="leave them out, or give scores of the whole system to glottis score-metrics",
        )
    selected = any(_hashes(card).get("selection") == given.sha256 for card in cards)
    return (kinds[1].read(path) if selected else given), selected


def _known(
    given: Trials | Protocol, manifest: Manifest | None, conditions: Sequence[str]
) -> _Known:
    """Checks the list, and the list against the manifest."""
    if isinstance(given, Trials):
        require_trials(given, manifest)
    else:
        require_protocol(given, manifest)
    if manifest is None:
        return _Known()
    rows = manifest.take(given.rows(manifest))
    _refuse_training(rows, given.source)
    columns = {name: rows.column(name) for name in conditions}
    tables = {name: values for name, values in columns.items() if len(set(values)) > 1}
    speakers = rows.column("speaker")
    return _Known(rows, speakers if np.any(speakers != "") else None, tables)


def _remarks(clips: Clips, of_pairs: bool, conditions: Sequence[str]) -> list[str]:
    """Which manifest spoke, and what is not known without one."""
    remarks = [clips.remark] if clips.remark else []
    if clips.manifest is None:
        tables = f"no tables by {', '.join(conditions)}; " if conditions else ""
        speakers = "speakers are unknown, so the interval is that of trials; " if of_pairs else ""
        remarks.append(
            f"without a manifest {speakers}{tables}clips of the training data would not be "
            "noticed (give --manifest)"
        )
    return remarks


def _window(card: Mapping[str, Any]) -> Window | None:
    """The window that selection used in training, if the recipe set one."""
    tree = card["extra"].get("window")
    return None if tree is None else Window(**tree)


def _refuse_training(rows: Manifest, source: str) -> None:
    training = int((rows.column("split") == "train").sum())
    if training:
        raise DataError(
            f"{source}: {training} of {len(rows)} clips are training data",
            why="a model knows these voices; the number says nothing about strangers",
            fix="evaluate on other splits, or correct the column 'split' of the manifest",
            rule="P1",
        )
