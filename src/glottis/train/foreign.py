"""Keys of other trainers, and what they are here: for docs/migrating.md and for errors.

The table is ``foreign.yaml`` beside this file; its header explains the columns.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from glottis.configfile import read_mapping

TABLE = Path(__file__).with_name("foreign.yaml")

Answer = Literal["ours", "replaced", "absent", "planned"]


@dataclass(frozen=True)
class Row:
    """One key or command of other trainers; the header of the table explains the fields."""

    item: str
    answer: Answer
    keys: tuple[str, ...] = ()
    here: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    write: str = ""
    same: bool = False
    values: Mapping[str, str] = field(default_factory=dict)
    base: Literal["speaker", "spoof"] = "speaker"
    note: str = ""

    def written(self, value: object = None) -> str:
        """What to write for a value of the key: that of the value, else the general one."""
        for name, text in self.values.items():
            if name.lower() == str(value).lower():
                return text
        if self.same and isinstance(value, bool | int | float | str | list):
            given = shlex.quote(json.dumps(value).strip('"'))
            return f"{self.write.rpartition('=')[0]}={given}"
        listed = "; ".join(f"{text} (for {name})" for name, text in self.values.items())
        return self.write or listed


@dataclass(frozen=True)
class Group:
    """Rows of one kind.  extra: not of the list that every row of the others is from."""

    title: str
    rows: tuple[Row, ...]
    extra: bool = False


@dataclass(frozen=True)
class Start:
    """For the users of one trainer: pairs of their command and ours."""

    title: str
    rows: tuple[tuple[str, str], ...]


@cache
def groups() -> tuple[Group, ...]:
    """The whole table."""
    return tuple(
        Group(tree["title"], tuple(map(_row, tree["rows"])), tree.get("extra", False))
        for tree in read_mapping(TABLE)["groups"]
    )


@cache
def starts() -> tuple[Start, ...]:
    """Their commands and ours, trainer by trainer."""
    return tuple(
        Start(tree["title"], tuple((row["theirs"], row["ours"]) for row in tree["rows"]))
        for tree in read_mapping(TABLE)["starts"]
    )


def _row(tree: dict[str, Any]) -> Row:
    words = re.sub(r"\(.*\)", "", tree["item"]).split()
    keys = tree.get("keys", words if len(words) == 1 else [])
    lists = {name: tuple(tree.get(name, ())) for name in ("here", "later")}
    return Row(**{**tree, **lists, "keys": tuple(keys)})


@cache
def _by_key() -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for group in groups():
        for row in group.rows:
            for key in row.keys:
                found.setdefault(key.lower(), []).append(row)
    return found


def hint(path: str, value: object) -> str:
    """What to write instead of a key of another trainer; empty if it is none that we know.

    path: dotted, as in the recipe; of most keys only the last part counts.  For the ``name`` of a
    component (``model.name``) there is an answer if that name is known.
    """
    *sections, key = path.lower().split(".")
    if any(part.isdigit() for part in sections):
        return ""  # an entry of a list of ours
    rows = _by_key().get(sections[-1] if key == "name" and sections else key, [])
    known = [row for row in rows if str(value).lower() in map(str.lower, row.values)]
    found = known or ([] if key == "name" else rows)
    return _advice(found[0], value) if found else ""


def option_hint(word: str) -> str:
    """The same for a word of a command line, such as ``--batch_size=100``."""
    option, _, value = word.partition("=")
    as_option = hint(option, value or None)
    return as_option or hint(option.lstrip("-").replace("-", "_"), value or None)


def _advice(row: Row, value: object) -> str:
    written = row.written(value)
    note = row.note.partition(". ")[0].removesuffix(".")
    if row.answer == "absent":
        return f"left out on purpose: {note}"
    if row.answer == "planned":
        return f"not there yet: {note}" + (f"; now write {written}" if written else "")
    told = f"write {written}" if written else f"here that is {', '.join(row.here)}"
    return f"{told} ({note})" if note else told
