"""Strict, typed configuration: unknown, duplicate, mistyped, missing and unread keys are errors.

A component's options are a frozen `Config` next to the class it configures.  A recipe is a YAML
file (see `glottis.configfile`) that becomes one `Config`; every problem of it is reported at once.

    tree = apply_overrides(read_tree(Path("recipe.yaml")), ["optim.rate=2e-4"])
    recipe = build(Recipe, tree, source="recipe.yaml")
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from glottis.errors import ConfigError
from glottis.problems import Hint, Problems, config_type

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

    @model_validator(mode="after")
    def _no_idle_option(self) -> typing.Self:
        """An option that the others switch off keeps its default, or is off (0, null) itself."""
        for name, field, value in _fields(self):
            rule = next((m for m in field.metadata if isinstance(m, OnlyWith)), None)
            if rule is None or rule.holds(object.__getattribute__(self, "__dict__")):
                continue
            off = value is None or value in (0, False, ())
            if not off and value != field.get_default(call_default_factory=True):
                raise ValueError(f"'{name}' does nothing here: it acts only with {rule.text}")
        return self

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


@dataclass(frozen=True)
class OnlyWith:
    """Marks a field that acts only where others have certain values; elsewhere it is refused.

    text: the values, in words.  holds: takes all values of the section.
    """

    text: str
    holds: Callable[[Mapping[str, Any]], bool]


class ComponentSource(Protocol):
    """What `Choice` needs from a registry."""

    kind: str

    def __getitem__(self, name: str) -> Any: ...

    def names(self) -> list[str]: ...


@dataclass(frozen=True)
class Choice:
    """Marks a field (or a tuple of them) whose mapping names a registered component."""

    registry: ComponentSource


# ---------------------------------------------------------------- trees to configs


def build(cls: type[C], tree: Mapping[str, Any], source: str = "", hint: Hint | None = None) -> C:
    """A validated config, or one `ConfigError` that lists every problem.

    tree: plain data (mappings, lists, strings, numbers, booleans, None).
    source: named in the error, usually the file.
    hint: knows keys of other toolkits, and what they are called here.
    """
    problems = Problems(source or cls.__name__, hint)
    special = _specialise(cls, dict(tree), "", problems)
    try:
        text = json.dumps(tree)
    except TypeError as error:
        raise ConfigError(f"{source or cls.__name__}: {error}", fix="use plain values") from None
    try:
        config = special.model_validate_json(text)
    except pydantic.ValidationError as error:
        for item in error.errors():
            problems.add_from_pydantic(special, item)
        config = None
    if problems or config is None:
        raise problems.error()
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


def _specialise(cls: type[Any], tree: Any, path: str, problems: Problems) -> type[Any]:
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
        if choice is not None and isinstance(value, list | tuple):
            kinds = [_named(choice, item, f"{here}.{i}", problems) for i, item in enumerate(value)]
            if kinds:
                new_type = tuple[tuple(kinds)]  # type: ignore[misc]
        elif choice is not None and typing.get_origin(field.annotation) is not tuple:
            new_type = _named(choice, value, here, problems)
        elif choice is not None:
            continue  # one where a list belongs: refused below, by the type of the field
        else:
            inner = config_type(field.annotation)
            if inner is not None:
                new_type = _specialise(inner, value, here, problems)
                new_type = None if new_type is inner else new_type
        if new_type is not None:
            changed[name] = (new_type, field)
    if not changed:
        return cls
    return pydantic.create_model(cls.__name__, __base__=cls, __module__=cls.__module__, **changed)


def _named(choice: Choice, tree: Any, path: str, problems: Problems) -> Any:
    """The config type of the component that ``tree`` names; Any (no more checks) if it is wrong."""
    if not isinstance(tree, Mapping) or not isinstance(tree.get("name"), str):
        problems.add_unnamed(path, tree, choice.registry.kind, choice.registry.names())
        return Any
    try:
        entry = choice.registry[tree["name"]]
    except ConfigError as error:
        problems.add_unknown(path, tree, error)
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
    raise_unread(unread(config))


def raise_unread(dead: Sequence[str]) -> None:
    """`ConfigError` for settings, by their dotted names, that nobody read."""
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
