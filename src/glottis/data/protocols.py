"""Spoofing protocols: which utterances are bona fide, which are spoofed, and by what.

As for trials, `DevelopmentProtocol` chooses and `EvaluationProtocol` reports.  The published
layouts of ASVspoof 2019, 2021 and 5 are told apart by their number of columns; all are separated
by spaces, those named ``.tsv`` included.  N utterances.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glottis.data._files import some
from glottis.data._lines import read_lines
from glottis.data._sample import stratified_sample
from glottis.data.labels import BONAFIDE, SPOOF, canonical_labels
from glottis.data.manifest import Manifest
from glottis.data.manifest_check import TEXT
from glottis.data.roles import for_selection, identity_of, require_role
from glottis.errors import DataError

NO_ATTACK = ("-", BONAFIDE)
TRIAL_COLUMNS = 3
TRIALS_HINT = (
    "three cells a line are a trial list: it measures a speaker model (evaluate --trials, "
    "evaluate.trials in a recipe)"
)


@dataclass(frozen=True)
class Layout:
    """Which column (from 0) holds what.

    attack: None where the corpus has one kind of attack; it is then called ``attack_name``.
    conditions: further columns, by the name they get.
    """

    name: str
    columns: int
    key: int
    attack: int | None
    conditions: dict[str, int] = field(default_factory=dict)
    speaker: int = 0
    utterance: int = 1
    attack_name: str = ""


_TRIM = {"trim": 6, "subset": 7}
_ROOMS = {
    "asv_room": 2,
    "asv_mic": 3,
    "asv_distance": 4,
    "attacker_room": 5,
    "attacker_mic": 6,
    "attacker_distance": 7,
    "attacker_to_speaker": 8,
}
LAYOUTS = (
    Layout("asvspoof2019", 5, key=4, attack=3, conditions={"environment": 2}),
    Layout(
        "asvspoof2021_la", 8, key=5, attack=4, conditions={"codec": 2, "transmission": 3, **_TRIM}
    ),
    Layout(
        "asvspoof2021_df",
        13,
        key=5,
        attack=4,
        conditions={"codec": 2, "source": 3, **_TRIM, "vocoder": 8},
    ),
    Layout(
        "asvspoof2021_pa",
        12,
        key=9,
        attack=None,
        attack_name="replay",
        conditions={**_ROOMS, "trim": 10, "subset": 11},
    ),
    Layout(
        "asvspoof5",
        10,
        key=8,
        attack=7,
        conditions={"gender": 2, "codec": 3, "codec_quality": 4, "codec_seed": 5, "attack_tag": 6},
    ),
)


@dataclass(frozen=True, eq=False)
class Protocol:
    """Utterances with the truth.  Use one of the two subclasses.

    utterance, speaker, attack: (N,) text; attack is empty for bona fide.
    bonafide: (N,) bool.  conditions: name -> (N,) text (codec, subset, ...; ``-`` is empty).
    source: the file.  sha256: of the unedited file.  edits: what was done since, in words.
    """

    utterance: np.ndarray
    speaker: np.ndarray
    attack: np.ndarray
    bonafide: np.ndarray
    conditions: dict[str, np.ndarray]
    source: str
    sha256: str
    edits: tuple[str, ...] = ()
    role: ClassVar[str] = ""

    def __post_init__(self) -> None:
        require_role(self.role, "a protocol is either DevelopmentProtocol or EvaluationProtocol")

    @classmethod
    def read(cls, path: str | Path, layout_name: str | None = None) -> Self:
        """From a file in one of the published layouts; with ``layout_name`` only in that one."""
        widths = [layout.columns for layout in LAYOUTS]
        lines = read_lines(Path(path), "protocol", widths, {TRIAL_COLUMNS: TRIALS_HINT})
        layout = next(item for item in LAYOUTS if item.columns == len(lines.columns))
        if layout_name not in (None, layout.name):
            raise DataError(
                f"{path} has the {layout.columns} columns of {layout.name}, not those of "
                f"{layout_name}",
                fix="this is the protocol of another corpus",
            )
        label = canonical_labels(
            lines.columns[layout.key], source=f"{path}, column {layout.key + 1} ({layout.name})"
        )
        bonafide = np.asarray(pc.equal(label, BONAFIDE))
        if layout.attack is None:
            attack = np.where(bonafide, "", layout.attack_name).astype(object)
        else:
            attack = _objects(_emptied(lines.columns[layout.attack], NO_ATTACK))
        conditions = {
            name: _objects(_emptied(lines.columns[column], ("-",)))
            for name, column in layout.conditions.items()
        }
        return cls(
            _objects(lines.columns[layout.utterance]),
            _objects(lines.columns[layout.speaker]),
            attack,
            bonafide,
            {name: values for name, values in conditions.items() if np.any(values != "")},
            str(path),
            lines.sha256,
        )

    @classmethod
    def from_manifest(cls, manifest: Manifest, source: str = "manifest") -> Self:
        """All labelled rows of a manifest, for corpora that ship no protocol."""
        label = manifest.column("label")
        if not len(manifest) or np.any(label == ""):
            raise DataError(
                f"{source}: {int(np.sum(label == ''))} of {len(manifest)} rows have no label",
                fix="select labelled rows",
            )
        return cls(
            manifest.column("utterance"),
            manifest.column("speaker"),
            manifest.column("attack"),
            np.asarray(label == BONAFIDE),
            {},
            source,
            manifest.sha256,
        )

    def __len__(self) -> int:
        return len(self.utterance)

    def __repr__(self) -> str:
        spoofed = len(self) - int(self.bonafide.sum())
        counts = f"{int(self.bonafide.sum())} bona fide, {spoofed} spoof"
        return f"{type(self).__name__}({self.source}: {counts})"

    @property
    def label(self) -> np.ndarray:
        """(N,) ``bonafide`` or ``spoof``."""
        return np.where(self.bonafide, BONAFIDE, SPOOF).astype(object)

    @property
    def identity(self) -> str:
        """64 hex digits over the unedited file and every edit."""
        return identity_of(self.sha256, self.edits)

    def attacks(self) -> tuple[str, ...]:
        """Sorted names of the attacks."""
        return tuple(sorted(set(self.attack[~self.bonafide]) - {""}))

    def rows(self, manifest: Manifest) -> np.ndarray:
        """(N,) int64: the manifest row of each utterance; an unknown one is an error."""
        rows = manifest.find(pa.array(self.utterance, TEXT), self.source)
        unknown = self.utterance[rows < 0].tolist()
        if unknown:
            raise DataError(
                f"{self.source}: {len(unknown)} of {len(self)} utterances are not in the manifest: "
                f"{some(unknown)}",
                why="an utterance without audio would be left out unnoticed",
                fix="use the manifest of the corpus that the protocol belongs to",
                rule="P7",
            )
        return rows

    def where(self, mask: np.ndarray, edit: str) -> Self:
        """The utterances where the (N,) mask is true; ``edit`` says in words what that was."""
        return replace(
            self,
            utterance=self.utterance[mask],
            speaker=self.speaker[mask],
            attack=self.attack[mask],
            bonafide=self.bonafide[mask],
            conditions={name: values[mask] for name, values in self.conditions.items()},
            edits=(*self.edits, edit),
        )

    def select(self, condition: str, *values: str) -> Self:
        """Only one condition, for example ``select("subset", "eval")`` for ASVspoof 2021."""
        if condition not in self.conditions:
            raise DataError(
                f"{self.source} has no condition '{condition}'",
                fix=f"known: {', '.join(self.conditions) or 'none'}",
            )
        mask = np.isin(self.conditions[condition], np.array(values, dtype=object))
        if not mask.any():
            found = some(sorted(set(self.conditions[condition])))
            raise DataError(f"{self.source}: no {condition} is {some(values)}; found: {found}")
        return self.where(mask, f"{condition} in {', '.join(values)}")

    def subset(self, num: int, seed: int) -> Self:
        """A seeded sample of ``num`` utterances with the shares of labels and attacks."""
        groups = np.unique(self.attack.astype(str), return_inverse=True)[1].reshape(-1)
        mask = stratified_sample(groups * 2 + self.bonafide, num, seed, self.source)
        return self.where(mask, f"stratified subset of {num} utterances, seed {seed}")

    def summary(self) -> dict[str, Any]:
        """Plain data for the run card."""
        names, counts = np.unique(self.attack[~self.bonafide].astype(str), return_counts=True)
        return {
            "file": self.source,
            "role": self.role,
            "sha256": self.sha256,
            "edits": list(self.edits),
            "utterances": len(self),
            "bonafide": int(self.bonafide.sum()),
            "spoof": int((~self.bonafide).sum()),
            "attacks": {n or "(unnamed)": int(c) for n, c in zip(names, counts, strict=True)},
        }


class DevelopmentProtocol(Protocol):
    """A protocol for choosing checkpoints and settings."""

    role: ClassVar[str] = "development"


class EvaluationProtocol(Protocol):
    """A protocol for the number that is reported; nothing may be chosen by it."""

    role: ClassVar[str] = "evaluation"

    def as_development(self, *, allow: str) -> DevelopmentProtocol:
        """Use this protocol for selection after all; ``allow`` must be ``"P6"``."""
        return for_selection(self, DevelopmentProtocol, allow)


def _objects(column: pa.Array) -> np.ndarray:
    return np.array(column.to_numpy(zero_copy_only=False), dtype=object)


def _emptied(column: pa.Array, blanks: tuple[str, ...]) -> pa.Array:
    """The column with the corpus's words for "none" as empty text."""
    empty = pc.is_in(column, value_set=pa.array(blanks, TEXT))
    return pc.if_else(empty, pa.scalar("", TEXT), column)
