"""The truth for a score file: a trial list, a protocol, or an ASVspoof 5 key with a header; and
who speaks, from a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from glottis.data import EvaluationProtocol, EvaluationTrials, Manifest
from glottis.data._lines import Lines, read_lines
from glottis.data.labels import BONAFIDE, canonical_labels
from glottis.data.protocols import LAYOUTS as PROTOCOL_LAYOUTS
from glottis.errors import ConfigError, DataError

TEXT = pa.large_string()
OFFICIAL_SUBSET = "eval"
TRACK2 = "asvspoof5_track2"
TABLES = (".csv", ".parquet")
_KINDS = ("nontarget", "target", "spoof")
_TRACK1 = ("filename", "cm-label")
_TRACK2 = ("spk", "filename", "cm-label", "asv-label")


@dataclass(frozen=True, eq=False)
class Key:
    """Which trials there are, and which are targets (bona fide).

    names: the (N,) columns that name a trial, in the order of ``data``.  all_names: those of the
    whole file, subsets that are not measured included.
    """

    layout: str
    data: EvaluationTrials | EvaluationProtocol
    names: tuple[pa.Array, ...]
    all_names: tuple[pa.Array, ...]
    remarks: tuple[str, ...]

    @property
    def labels(self) -> np.ndarray:
        """(N,) target/nontarget/spoof or bonafide/spoof."""
        if isinstance(self.data, EvaluationProtocol):
            return self.data.label
        words: np.ndarray = np.array(_KINDS, dtype=object)[self.data.kind]
        return words


def read_key(path: str | Path, subset: str | None = None) -> Key:
    """Read a key; its number of columns (and its header) tell what it is.

    subset: of a key that has several (ASVspoof 2021); None = the official one, "eval".
    """
    path = Path(path)
    if path.suffix.lower() in TABLES:
        manifest = Manifest.read(path)
        return _of_protocol("manifest", EvaluationProtocol.from_manifest(manifest, str(path)), None)
    widths = {2, 3, 4, *(layout.columns for layout in PROTOCOL_LAYOUTS)}
    lines = read_lines(path, "key", sorted(widths))
    width = len(lines.columns)
    first = tuple(str(column[0].as_py()).lower() for column in lines.columns)
    if first == _TRACK1:
        return _of_protocol("asvspoof5_track1", _headed(lines, None, 0, 1), subset)
    if subset is not None and (first == _TRACK2 or width == 3):
        raise ConfigError(f"the trial list {path} has no subsets", fix="leave --subset out")
    if first == _TRACK2:
        return _track2(lines)
    if width == 3:
        trials = EvaluationTrials.read(path)
        return _of_trials("trials", trials)
    if width == 2:
        return _of_protocol("utterance label", _plain(lines), subset)
    if width == 4:
        raise DataError(
            f"{path}: four columns, but not the header '{' '.join(_TRACK2)}'",
            fix="keys are trial lists (3 columns) or protocols (2, 5, 8, 10, 12 or 13 columns)",
        )
    layout = next(item.name for item in PROTOCOL_LAYOUTS if item.columns == width)
    return _of_protocol(layout, EvaluationProtocol.read(path), subset)


def read_speakers(path: str | Path) -> dict[str, str]:
    """Utterance -> speaker, from a manifest or from lines ``utterance speaker`` (Kaldi utt2spk).

    A row of a manifest is known by its utterance and by its path.
    """
    path = Path(path)
    if path.suffix.lower() in TABLES:
        manifest = Manifest.read(path)
        speaker, utterance = (manifest.column(name).tolist() for name in ("speaker", "utterance"))
        pieces = "start_s" in manifest.columns  # of one file, perhaps of several speakers
        keys = [*([] if pieces else manifest.column("path").tolist()), *utterance]
        known = dict(zip(keys, [*([] if pieces else speaker), *speaker], strict=True))
        known = {key: name for key, name in known.items() if name}
        if not known:
            raise DataError(
                f"{path}: the column 'speaker' is empty",
                fix="give a table that says who speaks, or leave --speakers out",
            )
        return known
    lines = read_lines(path, "table of speakers", (2,))
    utterances, speakers = (column.to_pylist() for column in lines.columns)
    known = dict(zip(utterances, speakers, strict=True))
    differ = pa.array([known[u] != s for u, s in zip(utterances, speakers, strict=True)])
    lines.refuse(differ, "the utterance has another speaker elsewhere", "correct the table")
    return known


def _of_protocol(layout: str, protocol: EvaluationProtocol, subset: str | None) -> Key:
    everything = (pa.array(protocol.utterance.tolist(), TEXT),)
    remarks = [f"{protocol.source}: {len(protocol):,} utterances, layout {layout}"]
    subsets = set(protocol.conditions.get("subset", np.array([], dtype=object)).tolist())
    if subset is not None or OFFICIAL_SUBSET in subsets:
        protocol = protocol.select("subset", subset or OFFICIAL_SUBSET)
        remarks.append(f"subset '{subset or OFFICIAL_SUBSET}': {len(protocol):,} utterances")
    names = (pa.array(protocol.utterance.tolist(), TEXT),)
    return Key(layout, protocol, names, everything, tuple(remarks))


def _of_trials(layout: str, trials: EvaluationTrials) -> Key:
    names = tuple(pa.array(side.tolist(), TEXT) for side in (trials.enrol_keys, trials.test_keys))
    return Key(layout, trials, names, names, (f"{trials.source}: {len(trials):,} trials",))


def _plain(lines: Lines) -> EvaluationProtocol:
    return _protocol(lines, lines.columns[0], lines.columns[1], None)


def _headed(lines: Lines, speaker: int | None, utterance: int, label: int) -> EvaluationProtocol:
    columns = [column.slice(1) for column in lines.columns]
    names = None if speaker is None else columns[speaker]
    return _protocol(lines, columns[utterance], columns[label], names)


def _protocol(
    lines: Lines, utterance: pa.Array, label: pa.Array, speaker: pa.Array | None
) -> EvaluationProtocol:
    blank = np.full(len(utterance), "", dtype=object)
    words = canonical_labels(label, source=f"{lines.path}, label column")
    return EvaluationProtocol(
        np.array(utterance.to_pylist(), dtype=object),
        blank if speaker is None else np.array(speaker.to_pylist(), dtype=object),
        blank,
        np.array(words.to_pylist(), dtype=object) == BONAFIDE,
        {},
        str(lines.path),
        lines.sha256,
    )


def _track2(lines: Lines) -> Key:
    """Speaker-utterance pairs with the label of both tasks; a spoof is a spoof trial."""
    speaker, utterance, cm, asv = (column.slice(1).to_pylist() for column in lines.columns)
    cm_words = canonical_labels(cm, source=f"{lines.path}, cm-label").to_pylist()
    kinds = []
    for word, trial in zip(cm_words, asv, strict=True):
        kind = trial if word == BONAFIDE else "spoof"
        if kind not in _KINDS:
            raise DataError(
                f"{lines.path}: asv-label '{trial}' of a {word} utterance",
                fix="it is target or nontarget for bona fide, and spoof for spoofs",
                rule="P7",
            )
        kinds.append(_KINDS.index(kind))
    trials = EvaluationTrials.from_pairs(speaker, utterance, kinds, str(lines.path))
    return _of_trials(TRACK2, trials)
