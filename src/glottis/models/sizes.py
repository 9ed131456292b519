"""Sizes of an embedding: a Matryoshka training makes its first values embeddings of their own.

Kusupati et al., "Matryoshka representation learning", NeurIPS 2022 (arXiv 2205.13147).
"""

from __future__ import annotations

from collections.abc import Sequence

from glottis.errors import ConfigError


def require_trained(size: int, trained: Sequence[int]) -> int:
    """``size``, if a model or a file has embeddings of that many values; else `ConfigError`."""
    if size in trained:
        return size
    known = ", ".join(map(str, trained))
    raise ConfigError(
        f"dim={size} was not trained: there are embeddings of {known} values",
        why="the first values of an embedding are an embedding only where the loss made them one",
        fix=f"choose from {known}, or train with loss.name=matryoshka and {size} in loss.dims",
    )


def chosen_sizes(text: str | None, trained: Sequence[int]) -> tuple[int, ...]:
    """``"64,128"`` or ``"all"`` as trained sizes, growing; None is the whole embedding."""
    if text is None:
        return (trained[-1],)
    if text.strip() == "all":
        return tuple(trained)
    try:
        sizes = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise ConfigError(
            f"--dim {text} is no list of sizes", fix="--dim 64, --dim 64,128 or --dim all"
        ) from None
    return tuple(require_trained(size, trained) for size in sizes)
