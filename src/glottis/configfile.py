"""YAML as we read it: duplicate keys are errors, ``1e-4`` is a number, ``yes`` is a word.

A file may name one base with ``extends``; ``key=value`` overrides change the tree before it is
checked, so they go through the same checks.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from glottis.errors import ConfigError

Tree = dict[str, Any]

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
    if text.lstrip("\ufeff \t\r\n").startswith(
        "{"
    ):  # JSON, which may be indented by tabs; YAML may not
        _refuse_comments(text, path)
        text = text.replace("\t", " ")
    tree = _load(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no sections", fix="a recipe is a mapping of sections")
    return tree


_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|(?:^|(?<=[\s,{}\[\]]))(//|/\*)')


def _refuse_comments(text: str, path: Path) -> None:
    """``//`` in a JSON file: as YAML, ``3 // a note`` would be a text."""
    for match in _STRING_OR_COMMENT.finditer(text):
        if match.group(1):
            line = text.count("\n", 0, match.start()) + 1
            raise ConfigError(
                f"{path}: line {line}: '{match.group(1)}' begins a comment; JSON has none",
                why="what follows would be read as a part of the value or of the next key",
                fix="delete the comments, or write the recipe as YAML, where # begins one",
            )


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


def read_tree(path: Path) -> Tree:
    """The mapping in a YAML file, merged over its base if it says ``extends: other.yaml``."""
    tree = read_mapping(path)
    base_name = tree.pop("extends", None)
    if base_name is None:
        return tree
    if not isinstance(base_name, str):
        raise ConfigError(f"{path}: 'extends' must be a file name, not {base_name!r}")
    base_path = path.parent / base_name
    base = read_mapping(base_path)
    if "extends" in base:
        raise ConfigError(
            f"{path} extends {base_path}, which itself extends {base['extends']}",
            why="one level keeps a recipe readable",
            fix="extend the last file directly",
        )
    return merge(base, tree)


def merge(base: Tree, overlay: Tree) -> Tree:
    """``overlay`` over ``base``; a section that changes its ``name`` replaces the old one whole."""
    result = dict(base)
    for key, value in overlay.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            renamed = "name" in value and value["name"] != old.get("name")
            result[key] = dict(value) if renamed else merge(old, value)
        else:
            result[key] = value
    return result


def apply_overrides(tree: Tree, overrides: Sequence[str]) -> Tree:
    """``["optim.rate=2e-4", "augment.0.probability=0.5"]`` over a tree; values are read as YAML.

    Names go first, so that ``model.name=x`` drops the options of the old model and not new ones.
    """
    parsed = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"'{text}' is not an override", fix="write key=value, for example optim.rate=2e-4"
            )
        parsed.append((key.strip(), parse_value(value, text)))
    result: Tree = copy.deepcopy(tree)
    for key, value in sorted(parsed, key=lambda pair: not pair[0].endswith(".name")):
        _set(result, key, value)
    return result


def _set(tree: Tree, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node: Any = tree
    for depth, part in enumerate(parents):
        here = ".".join(parents[: depth + 1])
        if isinstance(node, list):
            node = node[_index(node, part, here)]
        else:
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        if not isinstance(node, dict | list):
            raise ConfigError(f"override '{key}': '{here}' is a value, not a section")
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    elif last == "name" and node.get("name") not in (None, value):
        node.clear()
        node["name"] = value
    else:
        node[last] = value


def _index(items: list[Any], part: str, key: str) -> int:
    if part.isdigit() and int(part) < len(items):
        return int(part)
    raise ConfigError(f"override '{key}': '{part}' is not one of the positions 0..{len(items) - 1}")


_VARIABLE = re.compile(r"^\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def expand(text: str) -> Path:
    """The path that ``text`` means: ``${NAME}`` or ``${NAME:-default}`` at its start replaced."""
    match = _VARIABLE.match(text)
    if not match:
        return Path(text)
    name, default = match.groups()
    value = os.environ.get(name, default)
    if value is None:
        raise ConfigError(
            f"the path '{text}' needs the environment variable {name}, which is not set",
            fix=f"export {name}=/where/it/is, or give the path itself",
        )
    return Path(value + text[match.end() :])
