"""Score files of several systems as one table, trial by trial, ready to be measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glottis.data import (
    DevelopmentProtocol,
    DevelopmentTrials,
    EvaluationProtocol,
    EvaluationTrials,
)
from glottis.errors import ConfigError, DataError, ResultError
from glottis.score._checks import FloatArray, checked_scores, listed
from glottis.score.from_files import (
    join_scores,
    key_in_file,
    refuse_contradictions,
    require_same_labels,
    trial_ids,
)
from glottis.score.fusion import Fusion, fit_fusion, mean_fusion
from glottis.score.key_files import read_key
from glottis.score.layouts import ScoreTable, read_scores

Kind = Literal["mean", "standardised", "logistic"]


@dataclass(frozen=True)
class FusedScores:
    """table: the fused scores, names and labels as in the first file.  remarks: in words."""

    table: ScoreTable
    fusion: Fusion
    remarks: tuple[str, ...]


def fuse_files(
    scores: Sequence[str | Path],
    how: Kind = "mean",
    *,
    weights: Sequence[float] | None = None,
    development: Sequence[str | Path] = (),
    development_key: str | Path | None = None,
    layout: str | None = None,
) -> FusedScores:
    """One score per trial from the score files of several systems, which hold the same trials.

    weights: of the mean.  development: score files of the same systems, in the same order, for a
    fusion that learns; development_key: their trial list or protocol, if they hold no labels.
    Raises `DataError` (P6) if development and measured trials overlap.
    """
    if how not in get_args(Kind):
        raise ConfigError(f"there is no fusion '{how}'", fix=", ".join(get_args(Kind)))
    if len(scores) < 2:
        raise ConfigError("one score file cannot be fused", fix="give those of several systems")
    if (how == "mean") == bool(development):
        raise ConfigError(
            f"the fusion '{how}' with {len(development)} development score files",
            why="a mean learns nothing; the others learn on development scores",
            fix="leave them out"
            if development
            else "give one development score file for each system, in the same order",
        )
    if weights is not None and how != "mean":
        raise ConfigError(f"weights were given, but '{how}' has its own", fix="leave them out")
    tables = [_read(path, layout) for path in scores]
    matrix = _aligned(tables)
    remarks = [f"{table.source}: {len(table):,} scores, layout {table.layout}" for table in tables]
    if how == "mean":
        fusion = mean_fusion(len(tables), weights)
    else:
        if len(development) != len(scores):
            raise ConfigError(
                f"{len(development)} development score files for {len(scores)} systems",
                fix="give one for each, in the same order",
            )
        learned = [_read(path, layout) for path in development]
        fusion = _fitted(learned, development_key, how, tables[0])
        remarks.append(f"fusion learned on {', '.join(map(str, development))}")
        remarks += _shared_clips(learned[0], tables[0])
    shown = ", ".join(f"{weight:.4g}" for weight in fusion.weights)
    remarks.append(f"fusion '{how}': weights {shown}, offset {fusion.offset:.4g}")
    if fusion.calibrated:
        remarks.append("the fused scores are log-likelihood ratios")
    source = "fusion of " + ", ".join(str(path) for path in scores)
    return FusedScores(
        replace(tables[0], scores=fusion(matrix), source=source), fusion, tuple(remarks)
    )


def _read(path: str | Path, layout: str | None) -> ScoreTable:
    table = read_scores(path, layout)
    if table.layout == "asv":
        raise ResultError(
            f"{path} is a file of ASV scores (id, target|nontarget|spoof, score)",
            why="its ids do not name trials",
            fix="give it with --asv",
        )
    checked_scores(table.scores, "trial")
    refuse_contradictions(table)
    return table


def _aligned(tables: Sequence[ScoreTable]) -> FloatArray:
    """(K, N) in the order of the first file."""
    first = tables[0]
    wanted, rows = trial_ids(first.names), [first.scores]
    for table in tables[1:]:
        own = trial_ids(table.names)
        found = pc.index_in(wanted, value_set=own)
        strangers = own.filter(pc.invert(pc.is_in(own, value_set=wanted)))
        if len(table.names) != len(first.names) or found.null_count or len(strangers):
            missing = wanted.filter(pc.is_null(found))
            odd = [*missing.to_pylist(), *strangers.to_pylist()]
            raise ResultError(
                f"{table.source} and {first.source} hold different trials: {listed(odd)}",
                why="a fused score needs the score of every system",
                fix="score the same list with each system",
                rule="E1",
            )
        position = np.asarray(found.to_numpy(), np.int64)
        both = first.key is not None and table.key is not None
        if both and np.any(table.key[position] != first.key):  # type: ignore[index]
            raise ResultError(
                f"the labels in {table.source} contradict those in {first.source}",
                why="one of the files belongs to another list",
                rule="P7",
            )
        rows.append(table.scores[position])
    return np.stack(rows)


def _fitted(
    tables: Sequence[ScoreTable], key: str | Path | None, how: Kind, measured: ScoreTable
) -> Fusion:
    assert how != "mean"
    if key is not None:
        truth = read_key(key)
    elif tables[0].key is not None:
        truth = key_in_file(tables[0])
    else:
        raise ResultError(
            f"{tables[0].source} holds scores without labels",
            why="a fusion learns from trials whose truth is known",
            fix="give their trial list or protocol with --dev-key",
        )
    _refuse_overlap(truth.names, measured)
    matrix = np.stack([join_scores(table, truth, False)[0] for table in tables])
    for table in tables:
        require_same_labels(table, truth)
    return fit_fusion(matrix, _development(truth.data), how)


def _refuse_overlap(learned: tuple[pa.Array, ...], measured: ScoreTable) -> None:
    """A pair in the other order is the same trial."""
    ids, own = trial_ids(learned), trial_ids(measured.names)
    both = pc.or_(pc.is_in(ids, value_set=own), pc.is_in(trial_ids(learned[::-1]), value_set=own))
    known = ids.filter(both).to_pylist()
    if known:
        raise DataError(
            f"{len(known)} trials of {measured.source} are among the development trials: "
            f"{listed(known)}",
            why="weights that were learned on the trials that are reported report themselves",
            fix="learn on a development list that shares nothing with this one",
            rule="P6",
        )


def _shared_clips(learned: ScoreTable, measured: ScoreTable) -> list[str]:
    """A remark if other trials of the same clips taught the fusion."""
    if len(learned.names) < 2:
        return []  # a shared clip is a shared trial: refused
    one, two = (set().union(*(n.to_pylist() for n in t.names)) for t in (learned, measured))
    count = len(one & two)
    return [f"{count:,} clips are in the development trials too"] if count else []


def _development(
    data: EvaluationTrials | EvaluationProtocol,
) -> DevelopmentTrials | DevelopmentProtocol:
    """A list that was given for learning, in the type that says so."""
    values = {item.name: getattr(data, item.name) for item in fields(data)}
    if isinstance(data, EvaluationProtocol):
        return DevelopmentProtocol(**values)
    if data.spoof.any():
        raise DataError(
            f"{data.source} has spoof trials",
            why="they are neither targets nor other speakers",
            fix="learn the fusion of verification systems without them",
        )
    return DevelopmentTrials(**values)
