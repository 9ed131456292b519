"""Trial lists for speaker verification: which two utterances to compare, and the truth.

Lists for choosing a model and lists for reporting it are different types: `DevelopmentTrials` and
`EvaluationTrials`.  What selects takes the first only; `EvaluationTrials.as_development` is the one
way around it, it has to name the rule, and it leaves a mark in the summary.

Layouts: ``1 enrol test`` (VoxCeleb), ``enrol test target|nontarget|spoof`` (Kaldi, SASV) and
``enrol test 1`` (CN-Celeb).  N trials over U distinct utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glottis.data._files import sha256_of_bytes, some, write_atomically
from glottis.data._lines import Lines, read_lines
from glottis.data._sample import stratified_sample
from glottis.data.manifest import Manifest
from glottis.data.manifest_check import TEXT
from glottis.data.protocols import LAYOUTS, TRIAL_COLUMNS
from glottis.data.roles import for_selection, identity_of, require_role
from glottis.errors import DataError

NONTARGET, TARGET, SPOOF_TRIAL = 0, 1, 2
KINDS = ("nontarget", "target", "spoof")
Form = Literal["voxceleb", "kaldi", "number_last"]
PROTOCOL_HINTS = {
    layout.columns: f"{layout.columns} cells a line are a protocol ({layout.name}): it measures a "
    "countermeasure (evaluate --protocol, evaluate.protocol in a recipe)"
    for layout in LAYOUTS
}


@dataclass(frozen=True, eq=False)
class Trials:
    """Pairs of utterances with the truth.  Use one of the two subclasses.

    keys: (U,) distinct utterance names or paths.
    enrol, test: (N,) int32 positions in ``keys``.
    kind: (N,) uint8: 0 non-target, 1 target, 2 spoof (the test side imitates the enrolled speaker).
    source: the file, for messages.  sha256: of the unedited file.
    edits: what was done to the list since, in words.
    """

    keys: np.ndarray
    enrol: np.ndarray
    test: np.ndarray
    kind: np.ndarray
    source: str
    sha256: str
    edits: tuple[str, ...] = ()
    role: ClassVar[str] = ""

    def __post_init__(self) -> None:
        require_role(self.role, "a trial list is either DevelopmentTrials or EvaluationTrials")
        if not len(self.enrol) == len(self.test) == len(self.kind):
            raise DataError(f"{self.source}: the columns of the trial list differ in length")

    @classmethod
    def read(cls, path: str | Path, form: Form | None = None) -> Self:
        """From a file; the layout is recognised unless ``form`` states it."""
        lines = read_lines(Path(path), "trial list", (TRIAL_COLUMNS,), PROTOCOL_HINTS)
        form = _recognise(lines) if form is None else form
        if form not in get_args(Form):
            raise DataError(f"there is no trial layout '{form}'", fix=f"use {get_args(Form)}")
        first, second, third = lines.columns
        truth, enrol, test = (
            (first, second, third) if form == "voxceleb" else (third, first, second)
        )
        words = list(KINDS) if form == "kaldi" else ["0", "1"]
        kind = pc.index_in(truth, value_set=pa.array(words, TEXT))
        lines.refuse(
            pc.is_null(kind),
            f"the label is none of {', '.join(words)}",
            "correct the list; a missing label is never filled in",
        )
        keys, codes = _encode(enrol, test)
        return cls(
            keys,
            codes[: len(enrol)],
            codes[len(enrol) :],
            np.asarray(kind, np.uint8),
            str(path),
            lines.sha256,
        )

    @classmethod
    def from_pairs(
        cls,
        enrol: Sequence[str],
        test: Sequence[str],
        kind: Sequence[int] | np.ndarray,
        source: str = "built trials",
    ) -> Self:
        """From names; ``kind`` as in the class, or booleans that say target.

        The sha256 is that of the file that `write` makes.
        """
        kinds = np.asarray(kind).astype(np.uint8)
        if len(kinds) and kinds.max() > SPOOF_TRIAL:
            raise DataError(f"{source}: kinds are 0, 1 and 2, not {kinds.max()}")
        enrol_array, test_array = pa.array(list(enrol), TEXT), pa.array(list(test), TEXT)
        keys, codes = _encode(enrol_array, test_array)
        unhashed = cls(
            keys, codes[: len(enrol_array)], codes[len(enrol_array) :], kinds, source, ""
        )
        return replace(unhashed, sha256=sha256_of_bytes(unhashed._text()))

    def __len__(self) -> int:
        return len(self.kind)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source}: {self._counts()})"

    @property
    def target(self) -> np.ndarray:
        """(N,) true where both sides are one speaker."""
        return np.asarray(self.kind == TARGET)

    @property
    def spoof(self) -> np.ndarray:
        """(N,) true where the test side is a spoof."""
        return np.asarray(self.kind == SPOOF_TRIAL)

    @property
    def enrol_keys(self) -> np.ndarray:
        """(N,) names of the enrolment side."""
        return np.asarray(self.keys[self.enrol])

    @property
    def test_keys(self) -> np.ndarray:
        """(N,) names of the test side."""
        return np.asarray(self.keys[self.test])

    @property
    def identity(self) -> str:
        """64 hex digits over the unedited file and every edit."""
        return identity_of(self.sha256, self.edits)

    def rows(self, manifest: Manifest) -> np.ndarray:
        """(U,) int64: the manifest row of each key; an unknown key is an error that names it."""
        rows = manifest.find(pa.array(self.keys, TEXT), self.source)
        unknown = self.keys[rows < 0].tolist()
        if unknown:
            raise DataError(
                f"{self.source}: {len(unknown)} of {len(self.keys)} utterances are not in the "
                f"manifest: {some(unknown)}",
                why="a trial without audio would be left out unnoticed",
                fix="use the manifest of the corpus that the list belongs to; a key is an "
                "utterance or a path relative to data.root",
                rule="P7",
            )
        return rows

    def where(self, mask: np.ndarray, edit: str) -> Self:
        """The trials where the (N,) mask is true; ``edit`` says in words what that was."""
        rows = np.flatnonzero(mask)
        used, codes = np.unique(
            np.concatenate([self.enrol[rows], self.test[rows]]), return_inverse=True
        )
        return replace(
            self,
            keys=self.keys[used],
            enrol=codes[: len(rows)].astype(np.int32),
            test=codes[len(rows) :].astype(np.int32),
            kind=self.kind[rows],
            edits=(*self.edits, edit),
        )

    def subset(self, num: int, seed: int, strata: np.ndarray | None = None) -> Self:
        """A seeded sample of ``num`` trials with the shares of the whole list, in file order.

        strata: (N,) integers; their shares are kept as well (per source, for example).
        """
        groups = self.kind.astype(np.int64)
        if strata is not None:
            groups = groups + len(KINDS) * np.unique(strata, return_inverse=True)[1].reshape(-1)
        mask = stratified_sample(groups, num, seed, self.source)
        return self.where(mask, f"stratified subset of {num} trials, seed {seed}")

    def write(self, path: str | Path) -> None:
        """Write atomically: ``1 enrol test``, or with words if there are spoof trials."""
        write_atomically(Path(path), [self._text()])

    def summary(self) -> dict[str, Any]:
        """Plain data for the run card."""
        return {
            "file": self.source,
            "role": self.role,
            "sha256": self.sha256,
            "edits": list(self.edits),
            "trials": len(self),
            "utterances": len(self.keys),
            **{name: int((self.kind == i).sum()) for i, name in enumerate(KINDS)},
        }

    def _counts(self) -> str:
        return ", ".join(f"{int((self.kind == i).sum())} {name}" for i, name in enumerate(KINDS))

    def _text(self) -> bytes:
        broken = [str(key) for key in self.keys if len(str(key).split()) != 1]
        if broken:
            raise DataError(
                f"{self.source}: {len(broken)} utterance names hold white space: {some(broken)}",
                why="cells of a trial list are separated by spaces",
                fix="rename these utterances in the manifest",
            )
        enrol = pa.array(self.enrol_keys, TEXT)
        test = pa.array(self.test_keys, TEXT)
        with_words = bool(self.spoof.any())
        names = KINDS if with_words else ("0", "1")
        truth = pa.array(names, TEXT).take(pa.array(self.kind))
        cells = (enrol, test, truth) if with_words else (truth, enrol, test)
        rows = pc.binary_join_element_wise(*cells, pa.scalar(" ", TEXT))
        return ("\n".join(rows.to_pylist()) + "\n").encode() if len(self) else b""


class DevelopmentTrials(Trials):
    """Trials of speakers outside training, for choosing checkpoints and settings."""

    role: ClassVar[str] = "development"


class EvaluationTrials(Trials):
    """Trials for the number that is reported; nothing may be chosen by them."""

    role: ClassVar[str] = "evaluation"

    def as_development(self, *, allow: str) -> DevelopmentTrials:
        """Use these trials for selection after all; ``allow`` must be ``"P6"``."""
        return for_selection(self, DevelopmentTrials, allow)


def _encode(enrol: pa.Array, test: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Distinct keys (U,), and the (2N,) int32 codes of enrol then test."""
    encoded = pa.concat_arrays([enrol, test]).dictionary_encode()
    keys = np.array(encoded.dictionary.to_pylist(), dtype=object)
    return keys, np.asarray(encoded.indices, np.int32)


def _recognise(lines: Lines) -> Form:
    """The layout that fits most lines; two that fit equally well cannot be told apart."""
    numbers, words = pa.array(["0", "1"], TEXT), pa.array(KINDS, TEXT)
    shares: dict[Form, float] = {
        "voxceleb": _share(lines.columns[0], numbers),
        "kaldi": _share(lines.columns[2], words),
        "number_last": _share(lines.columns[2], numbers),
    }
    best = max(shares, key=shares.__getitem__)
    ties = [name for name, share in shares.items() if share == shares[best]]
    if len(ties) > 1:
        found = "more than one layout fits" if shares[best] else "no layout fits"
        raise DataError(
            f"{lines.path}: {found}; it starts with "
            f"'{' '.join(column[0].as_py() for column in lines.columns)}'",
            fix="lines are '1 enrol test', 'enrol test target|nontarget|spoof' or 'enrol test 1'; "
            "state the form",
            rule="P7",
        )
    return best


def _share(column: pa.Array, values: pa.Array) -> float:
    return float(pc.mean(pc.is_in(column, value_set=values).cast(pa.float64())).as_py())
