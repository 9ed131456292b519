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
    sizes = _listed(text, "--dim", "--dim 64, --dim 64,128 or --dim all")
    return tuple(require_trained(size, trained) for size in sizes)


def trained_sizes(text: str, embedding_size: int) -> tuple[int, ...]:
    """``"64,128,256"`` as the sizes that published weights were trained for, growing."""
    sizes = _listed(text, "--dims", f"--dims 64,{embedding_size}")
    if sizes[-1] != embedding_size or sizes[0] < 1:
        raise ConfigError(
            f"--dims {text} for embeddings of {embedding_size} values",
            why="the sizes are first values of the embedding, and the last one is the whole",
            fix=f"end with {embedding_size}",
        )
    return sizes


def _listed(text: str, option: str, examples: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        raise ConfigError(f"{option} {text} is no list of sizes", fix=examples) from None
