"""Checks of a trial list before a number is computed from it.

P7 the list says what it seems to say; P8 how fine and how certain its EER can be; P10 how much of
the answer is given away by sessions and genders.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from glottis.data._files import some
from glottis.data.findings import Finding, raise_stops
from glottis.data.labels import BONAFIDE, SPOOF
from glottis.data.manifest import Manifest
from glottis.data.manifest_check import TEXT
from glottis.data.trials import NONTARGET, TARGET, EvaluationTrials, Trials
from glottis.errors import DataError

MIN_TARGETS = 2000
MAX_RELATIVE_HALF_WIDTH = 0.15
_SHOWN = 3


def check_trials(trials: Trials, manifest: Manifest | None = None) -> list[Finding]:
    """Everything about a trial list that would make its numbers wrong (P7), and P8's warning.

    manifest: with it, unknown utterances and contradictions with its speakers are found too.
    """
    findings = [*_check_classes(trials), *_check_pairs(trials)]
    if manifest is not None:
        findings += _check_against(trials, manifest)
    if not findings:
        findings += check_resolution(int(trials.target.sum()), int((~trials.target).sum()))
    return findings


def require_trials(
    trials: Trials, manifest: Manifest | None = None, allow: Collection[str] = ()
) -> None:
    """`check_trials`, with one error for everything that must stop a run."""
    raise_stops(check_trials(trials, manifest), trials.source, allow)


def _check_classes(trials: Trials) -> list[Finding]:
    targets = int(trials.target.sum())
    others = len(trials) - targets
    if targets and others:
        return []
    seen = f"{targets} target and {others} other trials"
    return [Finding("P7", "stop", seen, "an EER needs both", "give the complete list")]


def _check_pairs(trials: Trials) -> list[Finding]:
    findings = []
    own = trials.enrol == trials.test
    if own.any():
        findings.append(
            Finding(
                "P7",
                "stop",
                f"{int(own.sum())} trials compare an utterance with itself: {_shown(trials, own)}",
                "they score perfectly whatever the model",
                "remove them",
            )
        )
    low, high = np.minimum(trials.enrol, trials.test), np.maximum(trials.enrol, trials.test)
    pair = low.astype(np.int64) * len(trials.keys) + high
    order = np.argsort(pair, kind="stable")
    again = np.zeros(len(trials), bool)
    again[order[1:]] = pair[order[1:]] == pair[order[:-1]]
    other = np.zeros(len(trials), bool)
    other[order[1:]] = again[order[1:]] & (trials.kind[order[1:]] != trials.kind[order[:-1]])
    if other.any():
        findings.append(
            Finding(
                "P7",
                "stop",
                f"{int(other.sum())} pairs stand twice with different labels: "
                f"{_shown(trials, other)}",
                "one of the two labels is wrong",
                "correct the list",
            )
        )
    twice = again & ~other
    if twice.any():
        # a published list is measured as it is; a list of one's own is made right
        published = isinstance(trials, EvaluationTrials)
        findings.append(
            Finding(
                "P7",
                "warn" if published else "stop",
                f"{int(twice.sum())} trials are duplicates (in either order): "
                f"{_shown(trials, twice)}",
                "they count twice in every rate",
                "remove them",
            )
        )
    return findings


def _check_against(trials: Trials, manifest: Manifest) -> list[Finding]:
    rows = manifest.find(pa.array(trials.keys, TEXT), trials.source)
    unknown = trials.keys[rows < 0].tolist()
    findings = []
    if unknown:
        findings.append(
            Finding(
                "P7",
                "stop",
                f"{len(unknown)} of {len(trials.keys)} utterances are not in the manifest: "
                f"{some(unknown)}",
                "their trials cannot be scored",
                "use the manifest of the corpus that the list belongs to",
            )
        )
    names, counts = np.unique(rows[rows >= 0], return_counts=True)
    if (counts > 1).any():
        shared = manifest.column("utterance")[names[counts > 1]].tolist()
        findings.append(
            Finding(
                "P7",
                "stop",
                f"{len(shared)} clips have two names in the list: {some(shared)}",
                "trials of a clip with itself, or the same trial twice, hide behind them",
                "use utterances or paths, not both",
            )
        )
    enrol, test = rows[trials.enrol], rows[trials.test]
    known = (enrol >= 0) & (test >= 0)
    if not known.any():
        return findings
    speaker, label = manifest.column("speaker"), manifest.column("label")
    both = known & (speaker[enrol] != "") & (speaker[test] != "")
    same = speaker[enrol] == speaker[test]
    wrong = both & (((trials.kind == TARGET) & ~same) | ((trials.kind == NONTARGET) & same))
    wrong |= known & trials.spoof & (label[test] == BONAFIDE)
    wrong |= known & ~trials.spoof & (label[test] == SPOOF)
    if wrong.any():
        findings.append(
            Finding(
                "P7",
                "stop",
                f"{int(wrong.sum())} labels contradict the speakers or labels of the manifest: "
                f"{_shown(trials, wrong)}",
                "either the list or the manifest is wrong",
                "correct the one that is",
            )
        )
    group = manifest.column("person_group")
    doubtful = known & (trials.kind == NONTARGET) & ~same
    doubtful &= (group[enrol] != "") & (group[enrol] == group[test])
    if doubtful.any():
        findings.append(
            Finding(
                "P7",
                "warn",
                f"{int(doubtful.sum())} non-target trials pair speakers that may be one person: "
                f"{_shown(trials, doubtful)}",
                "a right answer counts as an error",
                "leave out pairs of one person_group",
            )
        )
    return findings


def _shown(trials: Trials, mask: np.ndarray) -> str:
    rows = np.flatnonzero(mask)[:_SHOWN]
    enrol, test = trials.keys[trials.enrol[rows]], trials.keys[trials.test[rows]]
    pairs = [f"{a} - {b}" for a, b in zip(enrol, test, strict=True)]
    more = int(mask.sum()) - len(rows)
    return "; ".join(pairs) + (f" and {more} more" if more > 0 else "")


# ---------------------------------------------------------------- P8 and P10


@dataclass(frozen=True)
class Resolution:
    """How fine and how certain an EER on a list can be, as fractions.

    step: one more error among the targets moves the EER by this much.
    half_width: half of a 95 % interval at the expected EER, for independent trials (optimistic).
    """

    num_target: int
    num_nontarget: int
    expected_eer: float
    step: float
    half_width: float


def trial_resolution(num_target: int, num_nontarget: int, expected_eer: float = 0.05) -> Resolution:
    """P8: step 1/n_t and half width ``1.96 sqrt(p (1 - p) / 4 (1/n_t + 1/n_n))``."""
    if min(num_target, num_nontarget) < 1:
        raise DataError("a resolution needs target and non-target trials", rule="P8")
    if not 0.0 < expected_eer < 1.0:
        raise DataError(f"an EER is between 0 and 1, not {expected_eer}", fix="give a fraction")
    spread = expected_eer * (1 - expected_eer) / 4 * (1 / num_target + 1 / num_nontarget)
    half_width = 1.96 * float(np.sqrt(spread))
    return Resolution(num_target, num_nontarget, expected_eer, 1 / num_target, half_width)


def check_resolution(
    num_target: int, num_nontarget: int, expected_eer: float = 0.05
) -> list[Finding]:
    """P8's warning, with the numbers; nothing for a list that is large enough."""
    r = trial_resolution(num_target, num_nontarget, expected_eer)
    relative = r.half_width / r.expected_eer
    if num_target >= MIN_TARGETS and relative <= MAX_RELATIVE_HALF_WIDTH:
        return []
    seen = (
        f"{num_target} target and {num_nontarget} other trials: the EER moves in steps of "
        f"{100 * r.step:.3f} points, and at {100 * expected_eer:.1f} % its 95 % interval is "
        f"+-{100 * r.half_width:.2f} points"
    )
    why = "smaller differences between two models mean nothing"
    return [Finding("P8", "warn", seen, why, "report the interval, or use more trials")]


@dataclass(frozen=True)
class Composition:
    """P10: shares among the trials where both sides are known, None where none is.

    same_session: target trials within one session.  cross_gender: non-target trials across
    genders.  same_source: non-target trials within one source.
    """

    same_session: float | None
    cross_gender: float | None
    same_source: float | None


def composition(trials: Trials, manifest: Manifest) -> Composition:
    """How much sessions, genders and sources give away."""
    rows = trials.rows(manifest)
    enrol, test = rows[trials.enrol], rows[trials.test]

    def share(name: str, kind: int, equal: bool) -> float | None:
        values = manifest.column(name)
        known = (trials.kind == kind) & (values[enrol] != "") & (values[test] != "")
        if not known.any():
            return None
        same = values[enrol][known] == values[test][known]
        return float(np.mean(same if equal else ~same))

    return Composition(
        same_session=share("session", TARGET, equal=True),
        cross_gender=share("gender", NONTARGET, equal=False),
        same_source=share("source", NONTARGET, equal=True),
    )
