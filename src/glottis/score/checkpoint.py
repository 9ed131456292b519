"""A checkpoint on a list: every clip through the model once, every trial scored, one result.

The list that chose the checkpoint is recognised by its hash: its number is then a development
number and says so.  Clips that the manifest calls training data are refused (rule P1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from glottis.audio import PackedStore
from glottis.configfile import expand, read_mapping
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
from glottis.data.source import ClipSource, FileSource, StoreSource
from glottis.errors import ConfigError, DataError, ModelError
from glottis.models import Window, load_model, read_card
from glottis.score._checks import Names
from glottis.score.answer import resolve_checkpoint
from glottis.score.cosine import score_trials
from glottis.score.embed import Extraction, detect_clips, embed_clips
from glottis.score.evaluate import evaluate_speaker, evaluate_spoof
from glottis.score.parts import Resampled
from glottis.score.results import Result
from glottis.score.score_files import write_cm_scores, write_trial_scores

DEVELOPMENT_NOTE = (
    "these trials chose the checkpoint: this is a development number, not an evaluation result"
)


@dataclass(frozen=True)
class Clips:
    """Where the clips of a list are.

    root: folder of the audio.  manifest: says path, speaker and conditions; without it keys are
    paths below the root (trials) or fill ``pattern`` (protocols).  store: packed store to read.
    """

    root: Path
    manifest: Manifest | None = None
    store: PackedStore | None = None
    pattern: str = "{utterance}.flac"

    def source(self, keys: Names, rows: Manifest | None, sample_rate: int) -> ClipSource:
        """The samples of these keys, in this order."""
        if rows is not None and self.store is not None:
            return StoreSource(self.store, [str(u) for u in rows.column("utterance")])
        if rows is not None:
            paths = [str(path) for path in rows.column("path")]
        else:
            paths = [str(key) for key in keys]
        missing = [path for path in paths if not (self.root / path).is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(paths)} clips are not below {self.root}, the first is "
                f"{missing[0]}",
                why="skipped trials would make another, easier list",
                fix="give --root; for utterance names --manifest, or the protocol's --pattern",
                rule="P7",
            )
        return FileSource(self.root, paths, sample_rate, cache_mb=0)


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
    checkpoint: Path,
    clips: Clips,
    *,
    trials: Path | None = None,
    protocol: Path | None = None,
    conditions: Sequence[str] = ("source",),
    device: str = "cpu",
    readers: int = 2,
    how: Resampled | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluated:
    """EER, costs and tables of a model on a trial list or a protocol.

    progress: called with (clips done, all clips).
    """
    folder = resolve_checkpoint(checkpoint)
    card, model = read_card(folder), load_model(folder, device)
    wanted = {"speaker": trials, "spoof": protocol}[model.task]
    if wanted is None or (trials is None) == (protocol is None):
        option = {"speaker": "--trials", "spoof": "--protocol"}[model.task]
        raise ConfigError(
            f"{folder} is a {model.task} model; it is evaluated with {option} FILE",
            fix=f"give {option} and nothing else",
        )
    extraction = Extraction(window=_window(card), device=device, readers=readers, progress=progress)
    how = replace(how or Resampled(), run_id=card["extra"].get("run_id"))
    measure = _speaker if model.task == "speaker" else _spoof
    return measure(model, card, wanted, clips, list(conditions), extraction, how)


def _speaker(
    model: Any,
    card: Mapping[str, Any],
    path: Path,
    clips: Clips,
    conditions: list[str],
    extraction: Extraction,
    how: Resampled,
) -> Evaluated:
    trials: Trials = EvaluationTrials.read(path)
    selected = _selected(card, trials.sha256)
    if selected:
        trials = DevelopmentTrials.read(path)
    require_trials(trials, clips.manifest)
    rows, columns = None, dict[str, Names]()
    if clips.manifest is not None:
        rows = clips.manifest.take(trials.rows(clips.manifest))
        _refuse_training(rows, trials.source)
        columns = {name: rows.column(name) for name in ("speaker", *conditions)}
    source = clips.source(trials.keys, rows, model.sample_rate)
    scores = score_trials(embed_clips(model, trials.keys, source, extraction), trials)
    speakers = columns.pop("speaker", None)
    tables = {name: values for name, values in columns.items() if len(set(values)) > 1}
    result: Result = evaluate_speaker(scores, trials, speakers, tables, how=how)
    return Evaluated(_noted(result, selected), trials, scores, trials.target)


def _spoof(
    model: Any,
    card: Mapping[str, Any],
    path: Path,
    clips: Clips,
    conditions: list[str],
    extraction: Extraction,
    how: Resampled,
) -> Evaluated:
    protocol: Protocol = EvaluationProtocol.read(path)
    selected = _selected(card, protocol.sha256)
    if selected:
        protocol = DevelopmentProtocol.read(path)
    require_protocol(protocol, clips.manifest)
    rows, tables = None, dict[str, Names]()
    keys: Names = protocol.utterance
    if clips.manifest is not None:
        rows = clips.manifest.take(protocol.rows(clips.manifest))
        _refuse_training(rows, protocol.source)
        tables = {name: rows.column(name) for name in conditions}
        tables = {name: values for name, values in tables.items() if len(set(values)) > 1}
    else:
        keys = [clips.pattern.replace("{utterance}", name) for name in protocol.utterance]
    source = clips.source(keys, rows, model.sample_rate)
    scores = detect_clips(model, protocol.utterance, source, extraction)
    result: Result = evaluate_spoof(scores, protocol, tables, how=how)
    return Evaluated(_noted(result, selected), protocol, scores, protocol.bonafide)


def _window(card: Mapping[str, Any]) -> Window | None:
    """The window that selection used in training, if the recipe set one."""
    tree = card["extra"].get("window")
    return None if tree is None else Window(**tree)


def _selected(card: Mapping[str, Any], sha256: str) -> bool:
    data = card["extra"].get("data") or {}
    return bool((data.get("hashes") or {}).get("selection") == sha256)


def _noted(result: Result, selected: bool) -> Result:
    return replace(result, notes=(DEVELOPMENT_NOTE, *result.notes)) if selected else result


def _refuse_training(rows: Manifest, source: str) -> None:
    training = int((rows.column("split") == "train").sum())
    if training:
        raise DataError(
            f"{source}: {training} of {len(rows)} clips are training data",
            why="a model knows these voices; the number says nothing about strangers",
            fix="evaluate on other splits, or correct the column 'split' of the manifest",
            rule="P1",
        )


def clips_of_run(checkpoint: Path) -> tuple[Path | None, Path | None, Path | None]:
    """(root, manifest, store) that the run of a checkpoint was trained with, where they are known.

    Paths with a variable that is not set here are left out.
    """
    folder = resolve_checkpoint(checkpoint).resolve()
    for parent in (folder, *folder.parents[:2]):
        recipe = parent / "recipe.yaml"
        if recipe.is_file():
            data = read_mapping(recipe)["data"]
            found = [data.get(name) for name in ("root", "manifest", "store")]
            root, manifest, store = (None if f is None else _expanded(f) for f in found)
            return root, manifest, store
    return None, None, None


def _expanded(text: str) -> Path | None:
    try:
        return expand(text)
    except ConfigError:
        return None


def open_clips(
    checkpoint: Path,
    root: Path | None,
    manifest: Path | None,
    store: Path | None,
    pattern: str = "{utterance}.flac",
) -> Clips:
    """`Clips` from what was given, and from the run's own recipe for what was not."""
    known_root, known_manifest, known_store = clips_of_run(checkpoint)
    if root is None and manifest is None and store is None:
        root, manifest, store = known_root, known_manifest, known_store
    if store is not None and manifest is None:
        raise DataError("a packed store alone does not say who speaks", fix="give --manifest too")
    if root is None:
        root = manifest.parent if manifest is not None else Path()
    if not root.is_dir():
        raise DataError(f"the folder {root} does not exist", fix="give --root")
    if store is not None and not store.is_dir():
        raise ModelError(f"there is no packed store at {store}", fix="give --store, or pack it")
    return Clips(
        root=root,
        manifest=None if manifest is None else Manifest.read(manifest),
        store=None if store is None else PackedStore(store),
        pattern=pattern,
    )
