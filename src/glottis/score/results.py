"""Results of an evaluation as values: numbers with intervals, tables of conditions, notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glottis.score.intervals import Measured

SYNTHETIC = "SYNTHETIC: computer-made talkers; these numbers say nothing about people"
"""What stands with every number of data whose source is `SYNTHETIC_SOURCE`."""
SYNTHETIC_SOURCE = "synthetic"

LABELS = {
    "eer": "EER",
    "min_dcf_0.01": "minDCF(0.01)",
    "min_dcf_0.05": "minDCF(0.05)",
    "act_dcf_0.01": "actDCF(0.01)",
    "act_dcf_0.05": "actDCF(0.05)",
    "min_dcf": "minDCF",
    "act_dcf": "actDCF",
    "cllr": "Cllr",
    "min_cllr": "min Cllr",
    "min_tdcf_2019": "min t-DCF (2019)",
    "min_tdcf_2021": "min t-DCF (2021)",
    "min_a_dcf": "min a-DCF",
    "min_a_dcf_library": "min a-DCF (library default)",
    "eer_ratio": "EER over the whole's",
    "sasv_eer": "SASV-EER",
    "sv_eer": "SV-EER",
    "spf_eer": "SPF-EER",
}
"""Name of a metric in JSON -> its name in a table."""


def is_rate(metric: str) -> bool:
    """True for error rates, which are printed in percent."""
    return metric.endswith("eer")


@dataclass(frozen=True)
class Cell:
    """One row of a table by condition.

    condition: what is told apart ("source", "attack").  value: which ("VCTK", "A07").
    n: counts.  metrics: empty where the counts are too small; note says why.
    """

    condition: str
    value: str
    n: Mapping[str, int]
    metrics: Mapping[str, Measured] = field(default_factory=dict)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "condition": self.condition,
            "value": self.value,
            "n": dict(self.n),
            "metrics": {name: measured.to_dict() for name, measured in self.metrics.items()},
            "note": self.note,
        }


@dataclass(frozen=True)
class Result:
    """What was measured on one list.

    metrics: pooled numbers.  points: the same values without the rules that hide a number (for
    choosing a checkpoint, never for print).  thresholds: in score units, by metric.  cells: by
    condition.  notes: what a reader must know.  data: which list (file, role, sha256).
    """

    metrics: Mapping[str, Measured]
    points: Mapping[str, float]
    thresholds: Mapping[str, float]
    n: Mapping[str, int]
    cells: tuple[Cell, ...] = ()
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None
    task = ""

    @property
    def eer(self) -> float:
        """The pooled equal error rate, a fraction: what selection compares."""
        return self.points["eer"]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; an infinite threshold ("reject everything") is the text "inf"."""
        return {
            "task": self.task,
            "run_id": self.run_id,
            "n": dict(self.n),
            "metrics": {name: measured.to_dict() for name, measured in self.metrics.items()},
            "thresholds": {
                name: "inf" if value == float("inf") else value
                for name, value in self.thresholds.items()
            },
            "cells": [cell.to_dict() for cell in self.cells],
            "notes": list(self.notes),
            "data": dict(self.data),
        }

    def flat(self, prefix: str = "") -> dict[str, float]:
        """``{"dev/eer": 0.071, ...}`` for the metrics file of a run."""
        return {f"{prefix}{name}": value for name, value in self.points.items()}

    def rows(self) -> list[tuple[str, str]]:
        """(metric, number with interval) of the pooled numbers."""
        return [
            (LABELS.get(name, name), measured.text(percent=is_rate(name)))
            for name, measured in self.metrics.items()
        ]

    def conditions(self) -> list[str]:
        """The conditions that have a table."""
        return list(dict.fromkeys(cell.condition for cell in self.cells))

    def table(self, condition: str) -> tuple[list[str], list[list[str]]]:
        """(header, rows) of the table by one condition."""
        cells = [cell for cell in self.cells if cell.condition == condition]
        counts = list(dict.fromkeys(name for cell in cells for name in cell.n))
        metrics = list(dict.fromkeys(name for cell in cells for name in cell.metrics))
        header = [condition, *counts, *(LABELS.get(name, name) for name in metrics), "note"]
        rows = []
        for cell in cells:
            row = [cell.value, *(str(cell.n.get(name, "")) for name in counts)]
            for name in metrics:
                measured = cell.metrics.get(name)
                row.append("-" if measured is None else measured.text(percent=is_rate(name)))
            rows.append([*row, cell.note])
        if not any(cell.note for cell in cells):
            header, rows = header[:-1], [row[:-1] for row in rows]
        return header, rows

    def to_markdown(self) -> str:
        """All tables, counts, notes and the method of the intervals."""
        counts = ", ".join(f"{value:,} {name}" for name, value in self.n.items())
        parts = [f"{counts}.", _markdown(["metric", "value [95 %]"], [[*r] for r in self.rows()])]
        by_method: dict[str, list[str]] = {}
        for name, measured in self.metrics.items():
            by_method.setdefault(measured.method, []).append(LABELS.get(name, name))
        parts += [f"{', '.join(names)}: {method}." for method, names in by_method.items()]
        for condition in self.conditions():
            parts.append(_markdown(*self.table(condition)))
        parts += [f"Note: {note}" for note in self.notes]
        return "\n\n".join(parts) + "\n"


class SpeakerResult(Result):
    """Speaker verification on a trial list."""

    task = "speaker"


class SpoofResult(Result):
    """A countermeasure on a protocol."""

    task = "spoof"


class SasvResult(Result):
    """One score per trial against targets, other speakers and spoofs."""

    task = "sasv"


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell or " " for cell in line) + " |" for line in lines)
