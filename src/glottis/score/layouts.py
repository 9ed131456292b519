"""Which toolkit wrote a score file: layouts told apart by what their columns hold.

| layout | columns |
|---|---|
| ``trials`` | enrol test score (VoxCeleb, Kaldi, ours) |
| ``labelled_trials`` | enrol test score target/nontarget/spoof, or 1/0 (wespeaker, a-DCF) |
| ``score_first`` | score 1/0 enrol test |
| ``asv`` | id target/nontarget/spoof score (ASVspoof ASV scores) |
| ``asvspoof2019`` | utterance attack bonafide/spoof score |
| ``asvspoof2021`` | utterance score |
| ``asvspoof5_track1`` | header ``filename cm-score`` |
| ``asvspoof5_track2`` | header ``spk filename cm-score asv-score sasv-score``; ``-`` = none |

A file that fits none or more than one of them is refused; ``layout`` then has to be named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glottis.data._lines import Lines, read_lines
from glottis.data.labels import ALIASES, BONAFIDE, canonical_labels
from glottis.errors import ConfigError, DataError
from glottis.score._checks import FloatArray

TEXT = pa.large_string()
TRIAL_WORDS = ("target", "nontarget", "spoof")
_FLAGS = {"1": "target", "0": "nontarget"}


@dataclass(frozen=True)
class Layout:
    """name, what each column holds, and the header line if there is one."""

    name: str
    roles: tuple[str, ...]
    header: tuple[str, ...] = ()

    @property
    def has_key(self) -> bool:
        """True if a column holds labels."""
        return any(role in _VOCABULARY for role in self.roles)


_VOCABULARY: dict[str, Sequence[str]] = {
    "trial_key": TRIAL_WORDS,
    "flag": tuple(_FLAGS),
    "cm_key": tuple(ALIASES),
}
LAYOUTS = (
    Layout("trials", ("enrol", "test", "score")),
    Layout("asv", ("any", "trial_key", "score")),
    Layout("asvspoof2019", ("utterance", "attack", "cm_key", "score")),
    Layout("asvspoof2021", ("utterance", "score")),
    Layout("labelled_trials", ("enrol", "test", "score", "trial_key")),
    Layout("labelled_trials", ("enrol", "test", "score", "flag")),
    Layout("score_first", ("score", "flag", "enrol", "test")),
    Layout("asvspoof5_track1", ("utterance", "score"), ("filename", "cm-score")),
    Layout(
        "asvspoof5_track2",
        ("enrol", "utterance", "cm_score", "asv_score", "score"),
        ("spk", "filename", "cm-score", "asv-score", "sasv-score"),
    ),
)


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """The content of a score file, N rows.

    names: the columns that say which trial it is (enrol and test, or utterance).
    scores: (N,).  key: (N,) target/nontarget/spoof or bonafide/spoof, None if the file has none.
    attack: (N,) names, or None.  speaker: (N,) names, or None.
    """

    layout: str
    source: str
    sha256: str
    names: tuple[pa.Array, ...]
    scores: FloatArray
    key: np.ndarray | None = None
    attack: np.ndarray | None = None
    extra: dict[str, FloatArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)


def read_scores(path: str | Path, layout: str | None = None) -> ScoreTable:
    """Read a score file of any known layout; ``layout`` names it where it cannot be told."""
    lines = read_lines(Path(path), "score file", sorted({len(item.roles) for item in LAYOUTS}))
    known = dict.fromkeys(item.name for item in LAYOUTS)
    if layout is not None and layout not in known:
        raise ConfigError(f"there is no score layout '{layout}'", fix=f"known: {', '.join(known)}")
    found = _recognise(lines, layout)
    columns = dict(zip(found.roles, lines.columns, strict=True))
    if found.header:
        columns = {role: column.slice(1) for role, column in columns.items()}
    names = tuple(columns[role] for role in ("enrol", "test", "utterance") if role in columns)
    names = names or (columns["any"],)
    return ScoreTable(
        found.name,
        str(path),
        lines.sha256,
        names,
        _numbers(columns["score"], lines, bool(found.header)),
        _key(columns),
        _attack(columns),
        {
            role: _numbers(columns[role], lines, True)
            for role in ("cm_score", "asv_score")
            if role in columns and not pc.any(pc.equal(columns[role], "-")).as_py()
        },
    )


def is_number(column: pa.Array) -> bool:
    """True if every cell is a number."""
    try:
        pc.cast(column, pa.float64())
    except pa.ArrowInvalid:
        return False
    return len(column) > 0


def _recognise(lines: Lines, wanted: str | None) -> Layout:
    first = tuple(str(column[0].as_py()).lower() for column in lines.columns)
    for layout in LAYOUTS:
        if layout.header and layout.header == first:
            return layout
    candidates = [
        layout
        for layout in LAYOUTS
        if not layout.header
        and len(layout.roles) == len(lines.columns)
        and wanted in (None, layout.name)
    ]
    fits = [layout for layout in candidates if _fits(layout, lines, whole=True)]
    labelled = [layout for layout in fits if layout.has_key]
    if len(labelled) == 1 or (len(fits) == 1 and not labelled):
        chosen = (labelled or fits)[0]
        _refuse_half(chosen, candidates, lines, wanted)
        return chosen
    seen = " ".join(column[0].as_py() for column in lines.columns)
    told = "more than one layout fits" if fits else "no layout fits"
    rows = "; ".join(f"{layout.name}: {' '.join(layout.roles)}" for layout in candidates)
    raise DataError(
        f"{lines.path}: {told}; it starts with '{seen}'",
        why="a column read as something else would give a number that means nothing",
        fix=f"layouts with {len(lines.columns)} columns are {rows or '(none)'}; name the layout",
    )


def _fits(layout: Layout, lines: Lines, whole: bool) -> bool:
    """Whether all (``whole``) or some rows hold what the label columns must hold."""
    labels = []
    for role, column in zip(layout.roles, lines.columns, strict=True):
        if role == "score" and not is_number(column):
            return False
        if role in _VOCABULARY:
            words = pa.array(_VOCABULARY[role], TEXT)
            known = pc.is_in(pc.utf8_lower(column), value_set=words)
            labels.append((pc.all if whole else pc.any)(known).as_py())
    return all(labels)


def _refuse_half(
    chosen: Layout, candidates: Sequence[Layout], lines: Lines, wanted: str | None
) -> None:
    """A list without labels in which some cells look like labels, or all scores like flags."""
    if chosen.has_key or wanted is not None:
        return
    half = [item for item in candidates if item.has_key and _fits(item, lines, whole=False)]
    score = lines.columns[chosen.roles.index("score")]
    flags = pc.all(pc.is_in(score, value_set=pa.array(list(_FLAGS), TEXT))).as_py()
    if half or flags:
        reason = (
            "the column that should hold scores holds only 0 and 1"
            if flags
            else f"some lines look like layout '{half[0].name}' ({' '.join(half[0].roles)})"
        )
        raise DataError(
            f"{lines.path}: {reason}",
            why="labels and scores must not be mistaken for each other",
            fix=f"correct the file, or name the layout (here it would be '{chosen.name}')",
        )


def _numbers(column: pa.Array, lines: Lines, after_header: bool) -> FloatArray:
    try:
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    except pa.ArrowInvalid as error:
        start = 2 if after_header else 1
        raise DataError(
            f"{lines.path}: a score is not a number ({error})",
            fix=f"look at the score column from line {start} on",
        ) from None


def _key(columns: dict[str, pa.Array]) -> np.ndarray | None:
    if "trial_key" in columns:
        return np.array(pc.utf8_lower(columns["trial_key"]).to_pylist(), dtype=object)
    if "flag" in columns:
        return np.array([_FLAGS[cell] for cell in columns["flag"].to_pylist()], dtype=object)
    if "cm_key" in columns:
        return np.array(canonical_labels(columns["cm_key"]).to_pylist(), dtype=object)
    return None


def _attack(columns: dict[str, pa.Array]) -> np.ndarray | None:
    if "attack" not in columns:
        return None
    names = columns["attack"].to_pylist()
    return np.array(["" if name in ("-", BONAFIDE) else name for name in names], dtype=object)
