"""What a check of lists and splits found: each with seen, why and fix, like our errors."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from glottis.errors import DataError

Severity = Literal["stop", "warn", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing a check found.

    rule: code in the catalogue of mistakes (``P1`` ...).
    severity: ``stop`` must be fixed or allowed by its code, ``warn`` and ``note`` are told.
    """

    rule: str
    severity: Severity
    seen: str
    why: str = ""
    fix: str = ""

    def __str__(self) -> str:
        return f"[{self.rule}] {self.severity}: {self.seen}"


def raise_stops(findings: Iterable[Finding], source: str, allow: Collection[str] = ()) -> None:
    """One `DataError` with every ``stop`` whose code is not in ``allow``; else nothing."""
    stops = [f for f in findings if f.severity == "stop" and f.rule not in allow]
    if not stops:
        return
    if len(stops) == 1:
        only = stops[0]
        raise DataError(f"{source}: {only.seen}", why=only.why, fix=only.fix, rule=only.rule)
    lines = "\n".join(f"  [{f.rule}] {f.seen}" for f in stops)
    raise DataError(
        f"{source}: {len(stops)} problems\n{lines}",
        why="; ".join(dict.fromkeys(f.why for f in stops if f.why)),
        fix="; ".join(dict.fromkeys(f.fix for f in stops if f.fix)),
        rule=stops[0].rule,
    )
