"""The score sets and golden numbers that several tests of metrics read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

EER_SETS = (
    "gauss_balanced",
    "gauss_imbalanced",
    "ties_1dec",
    "ties_heavy",
    "perfect",
    "inverted",
    "overlap_none_tie",
    "tiny",
    "tiny2",
    "negdist",
)
CM_SETS = ("cm_good", "cm_ties", "cm_perfect", "cm_random")
SASV_SETS = ("sasv_a", "sasv_ties", "sasv_perfect", "sasv_chance")


def read_json(shared: Path, name: str) -> Any:
    return json.loads((shared / "golden" / name).read_text())


def eer_set(shared: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(scores, labels) in the stored order; labels 1 = target."""
    tensors = load_file(shared / "golden" / "eer_mindcf_scores.safetensors")
    return tensors[f"{name}.scores64"], tensors[f"{name}.labels"]


def split(shared: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(target, nontarget) scores of one of the `EER_SETS` or `CM_SETS`."""
    if name in CM_SETS:
        rows = _rows(shared, name)
        return _scores(rows, 3, 2, "bonafide"), _scores(rows, 3, 2, "spoof")
    scores, labels = eer_set(shared, name)
    return scores[labels == 1], scores[labels == 0]


def cm_attacks(shared: Path, name: str) -> np.ndarray:
    """Attack names of the spoofs, in the order of ``split(shared, name)[1]``."""
    return np.array([row[1] for row in _rows(shared, name) if row[2] == "spoof"])


def asv(shared: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(target, nontarget, spoof) scores of ``asv_a`` or ``asv_b``."""
    rows = _rows(shared, name)
    kinds = ("target", "nontarget", "spoof")
    return tuple(_scores(rows, 2, 1, kind) for kind in kinds)  # type: ignore[return-value]


def sasv(shared: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(target, nontarget, spoof) scores of one of the `SASV_SETS`."""
    rows = _rows(shared, name)
    kinds = ("target", "nontarget", "spoof")
    return tuple(_scores(rows, 2, 3, kind) for kind in kinds)  # type: ignore[return-value]


def _rows(shared: Path, name: str) -> list[list[str]]:
    path = shared / "golden" / "tdcf" / f"{name}.txt"
    return [line.split() for line in path.read_text().splitlines()]


def _scores(rows: list[list[str]], score: int, key: int, value: str) -> np.ndarray:
    return np.array([float(row[score]) for row in rows if row[key] == value])
