"""YAML as we read it: duplicate keys are errors, ``1e-4`` is a number, ``yes`` is a word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from glottis.errors import ConfigError

_FLOAT = re.compile(
    r"""^[-+]?(?: [0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)? | \.[0-9]+(?:[eE][-+]?[0-9]+)?
      | [0-9]+[eE][-+]?[0-9]+ | \.(?:inf|Inf|INF) )$ | ^\.(?:nan|NaN|NAN)$""",
    re.VERBOSE,
)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core types only: null, true/false, integers, floats, text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in [
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")),
    ("float", _FLOAT, list("-+0123456789.")),
]:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value, 10)  # 010 is ten, as everybody but YAML 1.1 reads it


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise ConfigError(f"line {line}: the key {key!r} is not text", rule="C4")
        if key in result:
            raise ConfigError(
                f"line {line}: the key '{key}' stands twice in one section",
                why="one of the two values would silently win",
                fix="keep one of them",
                rule="C3",
            )
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML (or JSON) file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror or error}", fix="check the path"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file", fix="give a YAML recipe") from None
    tree = _load(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no sections", fix="a recipe is a mapping of sections")
    return tree


def parse_value(text: str, source: str) -> Any:
    """One YAML value, as in ``key=value``."""
    return _load(text, f"override '{source}'")


def _load(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: builds plain data only
    except ConfigError as error:
        raise ConfigError(
            f"{source}: {error.seen}", why=error.why, fix=error.fix, rule=error.rule
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{source}:{where} not valid YAML: {problem}") from None
