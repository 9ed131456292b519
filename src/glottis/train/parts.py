"""Parts of a model by the names of their parameters: ``network.embedding.*``, ``head.*``.

Recipes name parts to freeze them, to train them and to give them rates of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from glottis.errors import ConfigError


def named(embedder: nn.Module, head: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter under the name that recipes use: ``network...``, ``head...``."""
    for name, parameter in embedder.named_parameters():
        yield name, parameter
    for name, parameter in head.named_parameters():
        yield f"head.{name}", parameter


def all_names(embedder: nn.Module, head: nn.Module) -> list[str]:
    """Names of parameters and of buffers: of a batch norm without weights, all that it has."""
    buffers = [name for name, _ in embedder.named_buffers()]
    buffers += [f"head.{name}" for name, _ in head.named_buffers()]
    return [*(name for name, _ in named(embedder, head)), *buffers]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns fits: a name, a section of names, or with ``*``."""
    return any(fnmatchcase(name, p) or name.startswith(f"{p}.") for p in patterns)


def require_patterns(patterns: Iterable[str], names: Iterable[str], key: str) -> None:
    """A pattern that fits none of the names is an error that shows what there is."""
    names = list(names)
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in names):
            parts = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
            raise ConfigError(
                f"{key}: no parameter is called '{pattern}'",
                why="the part that was meant would be treated like all others",
                fix=f"there are {', '.join(parts)}",
            )


def rate_factors(
    embedder: nn.Module,
    head: nn.Module,
    head_factor: float,
    parts: Mapping[str, float],
    layer_decay: float,
) -> dict[str, float]:
    """Multiple of the learning rate for every parameter, by name.

    parts: pattern -> multiple, the first that fits counts.  layer_decay: each block of the network
    has that multiple of the next one's.
    """
    names = [name for name, _ in named(embedder, head)]
    require_patterns(parts, names, "optim.part_rates")
    blocks = list(dict.fromkeys(block_of(name) for name in names if not name.startswith("head.")))
    factors = {}
    for name in names:
        found = next((rate for pattern, rate in parts.items() if matches(name, [pattern])), None)
        if name.startswith("head."):
            factors[name] = head_factor if found is None else found
        else:
            depth = len(blocks) - 1 - blocks.index(block_of(name))
            factors[name] = (1.0 if found is None else found) * layer_decay**depth
    return factors


def block_of(name: str) -> str:
    """The block of the network that a parameter is in: ``network.stages.0``, ``network.stem``."""
    words = name.split(".")
    return ".".join(words[: 3 if len(words) > 2 and words[2].isdigit() else 2])
