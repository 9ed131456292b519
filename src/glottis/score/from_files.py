"""Metrics from score files of any toolkit: what was recognised, matched and measured.

report = metrics_from_files("scores.txt", key="trials.txt")
report.result.to_markdown()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glottis.data import EvaluationProtocol, EvaluationTrials, require_protocol, require_trials
from glottis.errors import ConfigError, ResultError
from glottis.score._checks import FloatArray, checked_scores, listed
from glottis.score.evaluate import evaluate_sasv, evaluate_speaker, evaluate_spoof
from glottis.score.key_files import TRACK2, Key, read_key
from glottis.score.layouts import ScoreTable, read_scores
from glottis.score.parts import Resampled
from glottis.score.results import Result
from glottis.score.tandem import AsvRates, asv_rates


@dataclass(frozen=True)
class ScoreReport:
    """A result and how the files were read.

    layout: of the score file; key_layout: of the key ("in the score file" if it had none).
    remarks: what was matched, selected and left out, in words.
    """

    result: Result
    layout: str
    key_layout: str
    remarks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "layout": self.layout,
            "key_layout": self.key_layout,
            "remarks": list(self.remarks),
            **self.result.to_dict(),
        }

    def to_markdown(self) -> str:
        """What was read, then the tables of the result."""
        return (
            "\n".join(f"- {remark}" for remark in self.remarks)
            + "\n\n"
            + (self.result.to_markdown())
        )


def metrics_from_files(
    scores: str | Path | ScoreTable,
    key: str | Path | None = None,
    *,
    asv: str | Path | None = None,
    layout: str | None = None,
    subset: str | None = None,
    allow_extra: bool = False,
    speakers: Mapping[str, str] | None = None,
    calibrated: bool = False,
    how: Resampled | None = None,
) -> ScoreReport:
    """Everything that can be said about a score file, or about a table that was read from some.

    key: trial list or protocol; not needed where the score file holds labels.  asv: verification
    scores of the same corpus (``id target|nontarget|spoof score``), for t-DCF.  layout: of the
    score file, where it cannot be told.  subset: of an ASVspoof 2021 key; None = "eval", its
    official one.  allow_extra: scores of trials that the key does not have are left out.
    speakers: utterance -> speaker, for intervals over speakers (`read_speakers` reads a table);
    they replace those of a protocol.
    Raises `ResultError` if a trial has no score, or if there is no key at all.
    """
    table = scores if isinstance(scores, ScoreTable) else read_scores(scores, layout)
    remarks = [f"{table.source}: {len(table):,} scores, layout {table.layout}"]
    _refuse_asv(table)
    checked_scores(table.scores, "trial")  # first: NaN differs from itself
    if key is not None:
        refuse_contradictions(table)
        truth = read_key(key, subset)
        _refuse_wrong(truth)
        remarks += truth.remarks
        values, extra = join_scores(table, truth, allow_extra)
        if extra:
            remarks.append(f"{extra:,} scores of trials that the key does not have were left out")
        require_same_labels(table, truth)
    elif subset is not None or allow_extra:
        raise ConfigError(
            "a subset, or extra scores, were named without a key",
            why="both say which trials of a key are measured",
            fix="give the key with --key, or leave --subset and --allow-extra out",
        )
    elif table.key is not None:
        truth, values = key_in_file(table), table.scores
        remarks += _repeated(table)
    else:
        raise ResultError(
            f"{table.source} holds scores without labels (layout {table.layout})",
            why="error rates need to know which trials are targets",
            fix="give the trial list or the protocol with --key",
        )
    rates = None if asv is None else _asv(asv)
    data, how = truth.data, how or Resampled()
    result: Result
    if isinstance(data, EvaluationProtocol):
        if speakers is not None:
            names = np.array(_speakers(data.utterance.tolist(), speakers), dtype=object)
            data = replace(data, speaker=names)
        result = evaluate_spoof(values, data, asv=rates, calibrated=calibrated, how=how)
    else:
        if rates is not None:
            raise ResultError(
                "ASV scores were given, but the scores are those of a verification system",
                why="t-DCF measures a countermeasure beside a verification system",
                fix="give countermeasure scores first, or leave --asv out",
            )
        voices = None if speakers is None else _speakers(data.keys.tolist(), speakers)
        if data.spoof.any():
            if voices is None and truth.layout == TRACK2:
                voices = data.keys.tolist()  # its enrolment side is the speaker
            result = evaluate_sasv(values, data, voices, how=how)
        else:
            result = evaluate_speaker(values, data, voices, calibrated=calibrated, how=how)
    return ScoreReport(result, table.layout, truth.layout, tuple(remarks))


def trial_ids(names: tuple[pa.Array, ...]) -> pa.Array:
    """One text per trial."""
    if len(names) == 1:
        return names[0]
    return pc.binary_join_element_wise(*names, pa.scalar(" ", pa.large_string()))


def _refuse_asv(table: ScoreTable) -> None:
    if table.layout == "asv":
        raise ResultError(
            f"{table.source} is a file of ASV scores (id, target|nontarget|spoof, score)",
            why="it says nothing about a countermeasure, and its ids do not name trials",
            fix="give it with --asv beside the scores of a countermeasure",
        )


def _refuse_wrong(truth: Key) -> None:
    """A key with one class, or whose lines contradict each other (rule P7)."""
    if isinstance(truth.data, EvaluationProtocol):
        require_protocol(truth.data)
    else:
        require_trials(truth.data)


def refuse_contradictions(table: ScoreTable) -> None:
    """Two different scores of one trial."""
    rows = pa.table({"trial": trial_ids(table.names), "score": table.scores}).group_by("trial")
    spread = rows.aggregate([("score", "min"), ("score", "max")])
    differ = pc.not_equal(spread["score_min"], spread["score_max"])
    twice = spread.filter(differ)["trial"].to_pylist()
    if twice:
        raise ResultError(
            f"{table.source}: {len(twice)} trials have two different scores: {listed(twice)}",
            why="it would be left to chance which one counts",
            fix="write the file again; was it appended to?",
            rule="E1",
        )


def _repeated(table: ScoreTable) -> list[str]:
    """A remark if names repeat in a file whose lines carry their own labels."""
    count = len(table) - pc.count_distinct(trial_ids(table.names)).as_py()
    return [f"{count:,} trial names occur more than once; every line counts"] if count else []


def join_scores(table: ScoreTable, truth: Key, allow_extra: bool) -> tuple[FloatArray, int]:
    """(N,) scores in the order of the key, and how many scores it does not have."""
    own, wanted, known = trial_ids(table.names), trial_ids(truth.names), trial_ids(truth.all_names)
    if len(table.names) != len(truth.names):
        raise ResultError(
            f"the scores are of layout {table.layout}, the key of layout {truth.layout}",
            why="one is about pairs of utterances, the other about single ones",
            fix="give the key that belongs to the score file",
        )
    found = pc.index_in(wanted, value_set=own)
    if found.null_count:
        missing = wanted.filter(pc.is_null(found)).to_pylist()
        raise ResultError(
            f"{len(missing)} of {len(wanted)} trials of the key have no score: {listed(missing)}",
            why="an error rate over the other trials would be that of an easier list",
            fix="score the whole list; is it the key of this corpus?",
            rule="E1",
        )
    strangers = own.filter(pc.invert(pc.is_in(own, value_set=known))).to_pylist()
    if strangers and not allow_extra:
        raise ResultError(
            f"{len(strangers)} of {len(own)} scores are of trials that the key does not have: "
            f"{listed(strangers)}",
            why="the key may belong to another list",
            fix="give the key of this list, or leave extra scores out with --allow-extra",
            rule="E1",
        )
    return table.scores[np.asarray(found.to_numpy(), np.int64)], len(strangers)


def require_same_labels(table: ScoreTable, truth: Key) -> None:
    """Raise `ResultError` (P7) if labels inside the score file disagree with the key."""
    if table.key is None:
        return
    position = pc.index_in(trial_ids(truth.names), value_set=trial_ids(table.names)).to_numpy()
    differ = np.flatnonzero(table.key[position.astype(np.int64)] != truth.labels)
    if differ.size:
        names = trial_ids(truth.names).take(pa.array(differ[:5])).to_pylist()
        raise ResultError(
            f"{differ.size} labels in {table.source} contradict the key: {listed(names)}",
            why="one of the two files is wrong, or they belong to different lists",
            fix="compare the two files",
            rule="P7",
        )


def key_in_file(table: ScoreTable) -> Key:
    """The key inside a score file."""
    assert table.key is not None
    columns = [np.array(column.to_pylist(), dtype=object) for column in table.names]
    if len(columns) == 2:
        kinds = ["nontarget", "target", "spoof"]
        kind = [kinds.index(word) for word in table.key.tolist()]
        trials = EvaluationTrials.from_pairs(
            columns[0].tolist(), columns[1].tolist(), kind, table.source
        )
        return Key("in the score file", trials, table.names, table.names, ())
    attack = table.attack if table.attack is not None else np.full(len(table), "", dtype=object)
    blank = np.full(len(table), "", dtype=object)
    protocol = EvaluationProtocol(
        columns[0], blank, attack, table.key == "bonafide", {}, table.source, table.sha256
    )
    return Key("in the score file", protocol, table.names, table.names, ())


def _asv(path: str | Path) -> AsvRates:
    table = read_scores(path, "asv")
    assert table.key is not None
    groups = [table.scores[table.key == kind] for kind in ("target", "nontarget", "spoof")]
    return asv_rates(*groups)


def _speakers(utterances: list[str], speakers: Mapping[str, str]) -> list[str]:
    unknown = [name for name in utterances if name not in speakers]
    if unknown:
        raise ResultError(
            f"{len(unknown)} of {len(utterances)} utterances have no speaker: {listed(unknown)}",
            why="an interval over speakers needs every speaker",
            fix="give the manifest of this corpus, or none (trial bootstrap)",
        )
    return [speakers[name] for name in utterances]
