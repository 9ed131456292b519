"""Rule P6: the data that chooses a model is not the data that reports it.

What selects calls `require_development`; what reports compares the two lists with
`check_different`.
"""

from __future__ import annotations

from glottis.data.findings import Finding
from glottis.data.protocols import DevelopmentProtocol, EvaluationProtocol, Protocol
from glottis.data.trials import DevelopmentTrials, EvaluationTrials, Trials
from glottis.errors import DataError

Development = DevelopmentTrials | DevelopmentProtocol
Evaluation = EvaluationTrials | EvaluationProtocol


def require_development(data: object) -> Development:
    """The argument, if it is made for selection; evaluation data is refused (P6)."""
    if isinstance(data, DevelopmentTrials | DevelopmentProtocol):
        return data
    raise DataError(
        f"selection needs development data, not {type(data).__name__}",
        why="a number on data that chose the model is not a result",
        fix="give development trials, or override by name: as_development(allow='P6')",
        rule="P6",
    )


def check_different(development: Development, evaluation: Evaluation) -> list[Finding]:
    """Whether a model is chosen and reported on the same list, or on shared trials."""
    names = f"{development.source} (selection) and {evaluation.source} (report)"
    why = "the reported number is then a training number"
    fix = "select on trials of other speakers"
    if development.sha256 == evaluation.sha256:
        seen = f"{names} are the same file (sha256 {development.sha256[:12]})"
        return [Finding("P6", "stop", seen, why, fix)]
    shared = len(_contents(development) & _contents(evaluation))
    if not shared:
        return []
    unit = "trials" if isinstance(development, Trials) else "utterances"
    return [Finding("P6", "stop", f"{names} share {shared} {unit}", why, fix)]


def _contents(data: Trials | Protocol) -> set[object]:
    if isinstance(data, Protocol):
        return set(data.utterance.tolist())
    enrol, test = data.enrol_keys.tolist(), data.test_keys.tolist()
    return {(a, b) if a < b else (b, a) for a, b in zip(enrol, test, strict=True)}
