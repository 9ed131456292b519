"""What is wrong with a tree of settings: every problem with its place, in our words, at once."""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union

from pydantic import BaseModel

from glottis.errors import ConfigError

Hint = Callable[[str, object], str]
"""(dotted path of a key, its value) -> what to write instead; empty for a key it does not know."""


class Problems:
    """Collected while a tree becomes a config.

    source: named in the error, usually the file.
    hint: knows keys of other toolkits, and what they are called here.
    """

    def __init__(self, source: str, hint: Hint | None = None) -> None:
        self.source, self._hint = source, hint
        self._found: dict[tuple[str, str], None] = {}  # in order, each once
        self._foreign = False

    def __len__(self) -> int:
        return len(self._found)

    def add(self, path: str, text: str) -> None:
        """Note what is wrong at a dotted path."""
        self._found[path, text] = None

    def add_unnamed(self, path: str, value: object, kind: str, known: Sequence[str]) -> None:
        """A component that is not a section with a name."""
        told = self.told(f"{path}.name" if isinstance(value, str) else path, value)
        text = f"needs 'name', the {kind} to use"
        if not told and isinstance(value, str):
            told = f"write {{name: {value}}}"
            if value not in known:
                told = f"there is no '{value}'; {suggestion(value, known)}"
        self.add(path, f"{text}; {told}" if told else text)

    def add_unknown(self, path: str, tree: Mapping[str, object], error: ConfigError) -> None:
        """A component whose name nobody knows; one of another toolkit has keys of it too."""
        told = self.told(f"{path}.name", tree["name"])
        self.add(f"{path}.name", f"{error.seen}; {told or error.fix}")
        self._add_inner(path, tree if told else {})

    def _add_inner(self, path: str, tree: Mapping[str, object]) -> None:
        for key, value in tree.items():
            if key != "name" and (told := self.told(f"{path}.{key}", value)):
                self.add(f"{path}.{key}", told)

    def add_from_pydantic(self, cls: type[Any], item: Any) -> None:
        """One of the errors that pydantic found in a ``cls``."""
        kind, value, location = item["type"], item["input"], list(item["loc"])
        path, here = _place(cls, location)
        if kind == "extra_forbidden":
            config = config_type(_place(cls, location[:-1])[1])
            known = [] if config is None else list(config.__pydantic_fields__)
            told = self.told(path, value) or suggestion(str(location[-1]), known)
            self.add(path, f"unknown key; {told}")
            self._add_inner(path, value if isinstance(value, Mapping) else {})
        elif kind == "missing":
            self.add(path, "missing; this key has no default")
        elif kind in ("union_tag_invalid", "union_tag_not_found"):
            tag = str(value.get("name", ""))
            wrong = f"there is no '{tag}'" if tag else "missing"
            self.add(f"{path}.name", f"{wrong}; {suggestion(tag, list(_members(here)))}")
        else:
            text = _wrong_value(kind, item["msg"], value)
            if isinstance(value, str) and _members(here):
                text += f"; write {{name: {value}}}"
            elif text.startswith(("must be a list", "must be a section")):
                told = self.told(path, value)
                text += f"; {told}" if told else ""
            self.add(path, text)

    def told(self, path: str, value: object) -> str:
        """What the hint says about a key, if anything."""
        text = self._hint(path, value) if self._hint else ""
        self._foreign |= bool(text)
        return text

    def error(self) -> ConfigError:
        """All of them."""
        count = "1 problem" if len(self) == 1 else f"{len(self)} problems"
        lines = "\n".join(f"  {path or '(top)'}: {text}" for path, text in self._found)
        why = fix = ""
        if self._foreign:
            why = "a key that nothing reads changes nothing; the run would not be the one you meant"
            fix = "write them as shown, best into a recipe of ours; docs/migrating.md has them all"
        return ConfigError(f"{self.source}: {count}\n{lines}", why=why, fix=fix, rule="C1")


def suggestion(wrong: str, known: Sequence[str]) -> str:
    """The nearest of the known words, or all of them."""
    close = nearest(wrong, known, 1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(known))}"


def nearest(wrong: str, known: Sequence[str], count: int) -> list[str]:
    """The known words that look like a wrong one; capitals do not count."""
    by_lower = {word.lower(): word for word in known}
    return [by_lower[low] for low in difflib.get_close_matches(wrong.lower(), by_lower, n=count)]


def _wrong_value(kind: str, message: str, value: object) -> str:
    """A value of the wrong type or beyond its range, and what would help."""
    if kind == "value_error":
        return message
    text = message.replace("Input should be", "must be").replace("a valid boolean", "true or false")
    text = text.replace("an object", "a section").replace("a valid array", "a list")
    if not isinstance(value, str):
        return f"{text}, not {'a section' if isinstance(value, dict) else json.dumps(value)}"
    quotes = "'" if "number" in text or "integer" in text or "true or" in text else '"'
    text += f", not the text '{value}'" if quotes == "'" else f', not "{value}"'
    if re.search(r"\s(//|/\*)", value):
        text += "; a comment begins with #"
    elif re.fullmatch(r"(?i:true|false)", value) and kind == "bool_type":
        text += "; remove the quotes (a text counts as true, 'False' too)"
    elif re.fullmatch(r"[-+.]?\d[\d.eE+-]*", value) and quotes == "'":
        text += "; remove the quotes"
    return text


def _place(cls: Any, location: Sequence[Any]) -> tuple[str, Any]:
    """The dotted path as a recipe has it, and the annotation of what stands there.

    pydantic's location also holds the name of the chosen member of a union; a recipe does not.
    """
    shown, here = [], cls
    for part in location:
        if part in _members(here):
            here = _members(here)[part]
            continue
        shown.append(str(part))
        if isinstance(part, int):
            arguments = typing.get_args(here)
            here = arguments[part] if part < len(arguments) else None
        else:
            config = config_type(here)
            field = config.__pydantic_fields__.get(part) if config is not None else None
            here = None if field is None else field.annotation
    return ".".join(shown), here


def config_type(annotation: Any) -> type[BaseModel] | None:
    """The config class in ``SomeConfig`` or ``SomeConfig | None``, else None."""
    is_union = typing.get_origin(annotation) in (Union, types.UnionType)
    for option in typing.get_args(annotation) if is_union else (annotation,):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _members(annotation: Any) -> dict[Any, type[BaseModel]]:
    """The configs of a union by the value of their field ``name``, if that tells them apart."""
    if typing.get_origin(annotation) not in (Union, types.UnionType):
        return {}
    configs = [
        o for o in typing.get_args(annotation) if isinstance(o, type) and issubclass(o, BaseModel)
    ]
    named = [o for o in configs if "name" in o.__pydantic_fields__]
    return {o.__pydantic_fields__["name"].default: o for o in named}
