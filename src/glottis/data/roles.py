"""What trial lists and protocols have in common: a list that chooses, or one that reports (P6)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from glottis.errors import DataError

_log = logging.getLogger(__name__)

L = TypeVar("L")


def require_role(role: str, text: str) -> None:
    """A list without a role can be made by mistake only; ``text`` names the two that have one."""
    if not role:
        raise DataError(text, why="a list that chose the model cannot report it", rule="P6")


def identity_of(sha256: str, edits: Sequence[str]) -> str:
    """64 hex digits over the unedited file and every edit."""
    return hashlib.sha256("\n".join([sha256, *edits]).encode()).hexdigest()


def for_selection(evaluation: Any, kind: type[L], allow: str) -> L:
    """An evaluation list as development list ``kind``; ``allow`` must be ``"P6"``, and it is told.

    The override is written into the edits of the new list, so that its summary shows it.
    """
    if allow != "P6":
        raise DataError(
            f"{evaluation.source} is evaluation data",
            why="a number on data that chose the model is not a result",
            fix="select on development data, or allow it by name: P6",
            rule="P6",
        )
    _log.warning(
        "[P6] %s: evaluation data is used for selection, allowed by name", evaluation.source
    )
    values = {item.name: getattr(evaluation, item.name) for item in fields(evaluation)}
    values["edits"] = (*evaluation.edits, "evaluation data used for selection, allowed as P6")
    return kind(**values)
