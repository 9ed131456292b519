"""Strict, typed configuration: unknown, duplicate, mistyped, missing and unread keys are errors.

A component's options are a frozen `Config` next to the class it configures.  A recipe is a YAML
file (see `glottis.configfile`) that becomes one `Config`; every problem of it is reported at once.

    tree = apply_overrides(read_tree(Path("recipe.yaml")), ["optim.rate=2e-4"])
    recipe = build(Recipe, tree, source="recipe.yaml")
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from glottis.errors import ConfigError

C = TypeVar("C", bound="Config")
Tree = dict[str, Any]


class Config(BaseModel):
    """Base of every configuration: frozen, strict, no unknown keys, and it remembers what was read.

    Sequences are tuples; units are in the names (``crop_seconds``, ``snr_db``); the text under a
    field is its description.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )
    _reads: set[str] = PrivateAttr(default_factory=set)

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("_") and name in type(self).__pydantic_fields__:
            private = object.__getattribute__(self, "__pydantic_private__")
            if private:
                private["_reads"].add(name)
        return value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and to_tree(self) == to_tree(other)

    def __hash__(self) -> int:
        return hash(json.dumps(to_tree(self), sort_keys=True))

    def __reduce__(self) -> tuple[Any, ...]:
        """By content: the class of a config with chosen components exists only in this process."""
        static = _static_class(type(self))
        name = self.__dict__.get("name") if "name" not in static.__pydantic_fields__ else None
        return (_rebuild, (static, name, to_tree(self)))


def _static_class(cls: type[Config]) -> type[Config]:
    """The nearest class that can be imported: the one in the source, not one made by `build`."""
    for base in cls.__mro__:
        found: object = getattr(sys.modules.get(base.__module__), base.__qualname__, None)
        if found is base:
            return typing.cast(type[Config], base)
    return Config


def _rebuild(static: type[Config], name: str | None, tree: Tree) -> Config:
    return build(static if name is None else named_type(name, static), tree)


class SpeedOnly:
    """Marks a field that changes speed or bookkeeping, and no number beyond rounding."""


class ComponentSource(Protocol):
    """What `Choice` needs from a registry."""

    kind: str

    def __getitem__(self, name: str) -> Any: ...


@dataclass(frozen=True)
class Choice:
    """Marks a field (or a tuple of them) whose mapping names a registered component."""

    registry: ComponentSource


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where."""

    path: str
    text: str


# ---------------------------------------------------------------- trees to configs


def build(cls: type[C], tree: Mapping[str, Any], source: str = "") -> C:
    """A validated config, or one `ConfigError` that lists every problem.

    tree: plain data (mappings, lists, strings, numbers, booleans, None).
    source: named in the error, usually the file.
    """
    problems: list[Problem] = []
    special = _specialise(cls, dict(tree), "", problems)
    try:
        text = json.dumps(tree)
    except TypeError as error:
        raise ConfigError(f"{source or cls.__name__}: {error}", fix="use plain values") from None
    try:
        config = special.model_validate_json(text)
    except pydantic.ValidationError as error:
        problems += [_problem(special, item) for item in error.errors()]
        config = None
    if problems or config is None:
        raise _report(problems, source or cls.__name__)
    config = config.model_copy(
        deep=True
    )  # defaults are shared objects; reads are counted per config
    _forget_reads(config)
    return typing.cast(C, config)


def _forget_reads(config: Config) -> None:
    object.__getattribute__(config, "__pydantic_private__")["_reads"].clear()
    for _, _, value in _fields(config):
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Config):
                _forget_reads(item)


def _report(problems: list[Problem], source: str) -> ConfigError:
    unique = list(dict.fromkeys(problems))
    count = "1 problem" if len(unique) == 1 else f"{len(unique)} problems"
    lines = "\n".join(f"  {p.path or '(top)'}: {p.text}" for p in unique)
    return ConfigError(f"{source}: {count}\n{lines}", rule="C1")


def _specialise(cls: type[Any], tree: Any, path: str, problems: list[Problem]) -> type[Any]:
    """``cls`` with every `Choice` field typed by the component that the tree names."""
    if not isinstance(tree, Mapping):
        return cls
    changed: dict[str, Any] = {}
    for name, field in cls.__pydantic_fields__.items():
        value = tree.get(name)
        if value is None:
            continue
        here = f"{path}.{name}" if path else name
        choice = next((m for m in field.metadata if isinstance(m, Choice)), None)
        new_type: Any = None
        if choice is not None and isinstance(value, list):
            kinds = [_named(choice, item, f"{here}.{i}", problems) for i, item in enumerate(value)]
            if kinds:
                new_type = tuple[tuple(kinds)]  # type: ignore[misc]
        elif choice is not None:
            new_type = _named(choice, value, here, problems)
        else:
            inner = _config_type(field.annotation)
            if inner is not None:
                new_type = _specialise(inner, value, here, problems)
                new_type = None if new_type is inner else new_type
        if new_type is not None:
            changed[name] = (new_type, field)
    if not changed:
        return cls
    return pydantic.create_model(cls.__name__, __base__=cls, __module__=cls.__module__, **changed)


def _named(choice: Choice, tree: Any, path: str, problems: list[Problem]) -> Any:
    """The config type of the component that ``tree`` names; Any (no more checks) if it is wrong."""
    if not isinstance(tree, Mapping) or not isinstance(tree.get("name"), str):
        problems.append(Problem(path, f"needs 'name', the {choice.registry.kind} to use"))
        return Any
    try:
        entry = choice.registry[tree["name"]]
    except ConfigError as error:
        problems.append(Problem(f"{path}.name", f"{error.seen}; {error.fix}"))
        return Any
    return _specialise(named_type(entry.name, entry.config), tree, path, problems)


@cache
def named_type(name: str, config: type[Config]) -> type[Config]:
    """``config`` with the field ``name``, fixed to this component's name."""
    return pydantic.create_model(
        config.__name__,
        __base__=config,
        __module__=config.__module__,
        name=(_only(name), name),
    )


def _only(name: str) -> Any:
    return Annotated[Literal[name], Field(description="the component")]  # type: ignore[valid-type]


def _config_type(annotation: Any) -> type[Config] | None:
    """The Config class in ``Config`` or ``Config | None``, else None."""
    is_union = typing.get_origin(annotation) in (Union, types.UnionType)
    for option in typing.get_args(annotation) if is_union else (annotation,):
        if isinstance(option, type) and issubclass(option, Config):
            return option
    return None


def _problem(cls: type[Any], item: Any) -> Problem:
    """One pydantic error in our words."""
    kind, value, location = item["type"], item["input"], list(item["loc"])
    path, here = _place(cls, location)
    if kind == "extra_forbidden":
        config = _config_type(_place(cls, location[:-1])[1])
        known = [] if config is None else list(config.__pydantic_fields__)
        return Problem(path, f"unknown key; {_suggestion(str(location[-1]), known)}")
    if kind == "missing":
        return Problem(path, "missing; this key has no default")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag = str(value.get("name", ""))
        wrong = f"there is no '{tag}'" if tag else "missing"
        return Problem(f"{path}.name", f"{wrong}; {_suggestion(tag, list(_members(here)))}")
    text = item["msg"].replace("Input should be", "must be")
    text = text.replace("an object", "a section").replace("a valid array", "a list")
    if isinstance(value, str) and ("number" in text or "integer" in text or "boolean" in text):
        quoted = re.fullmatch(r"[-+.]?\d[\d.eE+-]*|true|false", value)
        hint = "; remove the quotes" if quoted else ""
        return Problem(path, f"{text}, not the text '{value}'{hint}")
    shown = json.dumps(value) if not isinstance(value, dict) else "a section"
    return Problem(path, f"{text}, not {shown}" if kind != "value_error" else text)


def _suggestion(wrong: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(known))}"


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
            config = _config_type(here)
            field = config.__pydantic_fields__.get(part) if config is not None else None
            here = None if field is None else field.annotation
    return ".".join(shown), here


def _members(annotation: Any) -> dict[Any, type[Config]]:
    """The configs of a union by the value of their field ``name``, if that tells them apart."""
    if typing.get_origin(annotation) not in (Union, types.UnionType):
        return {}
    configs = [
        o for o in typing.get_args(annotation) if isinstance(o, type) and issubclass(o, Config)
    ]
    named = [o for o in configs if "name" in o.__pydantic_fields__]
    return {o.__pydantic_fields__["name"].default: o for o in named}


# ---------------------------------------------------------------- configs to text and hashes


def to_tree(config: Config) -> Tree:
    """Plain data that `build` turns into an equal config."""
    tree: Tree = _name_first(config.model_dump(mode="json", serialize_as_any=True))
    return tree


def _name_first(value: Any) -> Any:
    if isinstance(value, list):
        return [_name_first(item) for item in value]
    if not isinstance(value, dict):
        return value
    keys = sorted(value, key=lambda key: key != "name")
    return {key: _name_first(value[key]) for key in keys}


def to_yaml(config: Config) -> str:
    """The complete (resolved) config as YAML."""
    return yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True)


def fingerprint(config: Config) -> str:
    """16 hex digits over everything that can change a number (not the `SpeedOnly` fields)."""
    text = json.dumps(identity_tree(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def identity_tree(config: Config) -> Tree:
    """`to_tree` without the fields marked `SpeedOnly`."""
    tree: Tree = {}
    for name, field, value in _fields(config):
        if any(m is SpeedOnly or isinstance(m, SpeedOnly) for m in field.metadata):
            continue
        if isinstance(value, Config):
            tree[name] = identity_tree(value)
        elif isinstance(value, tuple) and any(isinstance(v, Config) for v in value):
            tree[name] = [identity_tree(v) for v in value]
        else:
            tree[name] = to_tree(config)[name]
    return tree


def differences(old: Tree, new: Tree, prefix: str = "") -> list[str]:
    """``["optim.rate: 0.1 -> 0.2", ...]`` between two trees."""
    lines = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return lines


# ---------------------------------------------------------------- dead keys


def unread(config: Config, prefix: str = "") -> list[str]:
    """Dotted names of all fields that nobody has read so far."""
    missing = []
    reads = object.__getattribute__(config, "__pydantic_private__")["_reads"]
    for name, _, value in _fields(config):
        here = prefix + name
        if isinstance(value, Config):
            missing += unread(value, f"{here}.")
        elif isinstance(value, tuple) and value and all(isinstance(v, Config) for v in value):
            for index, item in enumerate(value):
                missing += unread(item, f"{here}.{index}.")
        elif name not in reads:
            missing.append(here)
    return missing


def require_all_read(config: Config) -> None:
    """Raise if a field was read by nobody: a setting without effect is a lie in the recipe."""
    dead = unread(config)
    if dead:
        raise ConfigError(
            f"nothing reads {len(dead)} of the settings: {', '.join(dead)}",
            why="a setting without effect misleads everyone who reads the recipe",
            fix="remove the keys; if they should act here, this is a bug of Glottis",
            rule="C2",
        )


def _fields(config: Config) -> Iterator[tuple[str, Any, Any]]:
    values = object.__getattribute__(config, "__dict__")
    for name, field in type(config).__pydantic_fields__.items():
        yield name, field, values[name]


# ---------------------------------------------------------------- documentation


def options(cls: type[Config]) -> list[dict[str, str]]:
    """Key, type, default and meaning of every field, for help pages."""
    rows = []
    for name, field in cls.__pydantic_fields__.items():
        annotation = field.annotation
        default = "required"
        if not field.is_required():
            default = str(field.get_default(call_default_factory=True))
        rows.append(
            {
                "key": name,
                "type": _type_text(annotation),
                "default": default,
                "meaning": field.description or "",
            }
        )
    return rows


def _type_text(annotation: object) -> str:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        options = [_type_text(option) for option in typing.get_args(annotation)]
        return " | ".join(options).replace("NoneType", "None")
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return re.sub(r"\b(\w+\.)+(?=\w)", "", str(annotation))  # without the modules
