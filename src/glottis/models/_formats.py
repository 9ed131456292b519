"""The published kinds of checkpoint that a network reads, and which of them a file is.

A network with one kind says so with plain attributes (``original_name`` and its companions, see
`glottis.models._registry`); one with several lists them: ``formats = (Format(...), Format(...))``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from glottis.errors import ModelError
from glottis.models._registry import MODELS

_WRAPPERS = ("module.", "_orig_mod.")  # of torch: several devices, compiled

Implied = tuple[dict[str, Any], dict[str, Any]]
"""Options of the network, and changes to its front end."""


@dataclass(frozen=True)
class Format:
    """One kind of checkpoint.

    name: what a user calls it ("speechbrain").
    original_name: the name of our tensor in such a file; a network whose names depend on its
    options has a method of that name, which is asked instead.
    marks: patterns of tensor names; a file can be of this kind if each of them occurs in it.
    prefixes: words that the trainer puts before every name (torch's own wrappers need no mention).
    extras: patterns of tensors that are no part of the network: a loss, mel tables.
    options: what the shapes in a file imply.  config: what the other content of a torch file
    implies, such as a stored configuration, for the model of the given name; it overrules the
    shapes, and refuses what describes another network.
    """

    name: str
    original_name: Callable[[str], str]
    marks: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    options: Callable[[Mapping[str, Tensor]], Implied] | None = None
    config: Callable[[Mapping[str, Any], str], Implied] | None = None

    def bare(self, name: str) -> str:
        """A tensor name without the words that wrappers put before it."""
        for prefix in (*_WRAPPERS, *self.prefixes):
            name = name.removeprefix(prefix)
        return name

    def stripped(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors under their bare names; two of one name are an error."""
        result: dict[str, Tensor] = {}
        for name, value in state.items():
            if self.bare(name) in result:
                raise ModelError(
                    f"two tensors are '{self.bare(name)}' once wrappers are taken off their names",
                    fix="store one network only",
                )
            result[self.bare(name)] = value
        return result

    def implied(
        self, state: Mapping[str, Tensor], content: Mapping[str, Any], arch: str
    ) -> Implied:
        """Options and front-end options that a file implies; state: under its bare names."""
        options, features = ({}, {}) if self.options is None else self.options(state)
        if self.config is not None and content:
            more, more_features = self.config(content, arch)
            options, features = {**options, **more}, {**features, **more_features}
        return options, features


def renamer(
    table: Sequence[tuple[str, str | Callable[[re.Match[str]], str]]],
) -> Callable[[str], str]:
    """A function that applies these patterns and replacements, one after the other, to a name."""

    def renamed(name: str) -> str:
        for pattern, replacement in table:
            name = re.sub(pattern, replacement, name)
        return name

    return renamed


def formats_of(target: Any) -> tuple[Format, ...]:
    """The kinds that a network class reads; empty if there are no published checkpoints."""
    if hasattr(target, "formats"):
        formats: tuple[Format, ...] = target.formats
        return formats
    if not hasattr(target, "original_name"):
        return ()
    return (
        Format(
            name="published",
            original_name=target.original_name,
            prefixes=tuple(getattr(target, "original_prefixes", ())),
            extras=tuple(getattr(target, "original_extras", ())),
            options=getattr(target, "original_options", None),
            config=getattr(target, "original_config", None),
        ),
    )


def importers(arch: str) -> tuple[Format, ...]:
    """The kinds of checkpoint that the registered model ``arch`` reads.

    A class under several names reads published files under all of them, unless its
    ``original_for`` says under which: where no list of published tensors could be compared.
    """
    target = MODELS[arch].target
    return formats_of(target) if arch in getattr(target, "original_for", (arch,)) else ()


def choose_format(formats: tuple[Format, ...], names: Iterable[str], wanted: str | None) -> Format:
    """The kind of a file with these tensor names, or the ``wanted`` one.

    Kinds that name their tensors alike are told apart by the extras of one of them, if the file
    has any.  Raises `ModelError` if no kind, or more than one, is possible.
    """
    known = ", ".join(found.name for found in formats)
    if wanted is not None:
        for found in formats:
            if found.name == wanted:
                return found
        raise ModelError(f"there is no format '{wanted}'", fix=f"known: {known}")
    if len(formats) == 1:
        return formats[0]
    names = list(names)
    possible = [found for found in formats if _has(found, names, found.marks, all)]
    telling = [found for found in possible if _has(found, names, found.extras, any)]
    possible = telling if len(telling) == 1 else possible
    if not possible:
        raise ModelError(
            "the tensor names are of no known format",
            why="; ".join(f"{found.name} has {' and '.join(found.marks)}" for found in formats),
            fix="choose the matching model",
        )
    if len(possible) > 1:
        alike = " and ".join(found.name for found in possible)
        raise ModelError(
            f"the tensors have the same names in the formats {alike}",
            why="the networks or their front ends differ all the same",
            fix=f"say where the file comes from: format='{possible[0].name}' "
            f"(--format {possible[0].name})",
        )
    return possible[0]


def _has(
    kind: Format,
    names: list[str],
    patterns: tuple[str, ...],
    count: Callable[[Iterable[bool]], bool],
) -> bool:
    bare = [kind.bare(name) for name in names]
    return count(any(fnmatchcase(name, pattern) for name in bare) for pattern in patterns)
