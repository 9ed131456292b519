"""Where the names of the corpora are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from glottis.config import Config
from glottis.data.corpora._prepared import Prepared
from glottis.registry import Registry

Prepare = Callable[[Path, Any], Prepared]
"""``prepare(root, config) -> Prepared``: the folder of the corpus and the reader's options."""

CORPORA: Registry[Prepare] = Registry("corpus", "glottis.data.corpora")


def register_corpus(name: str, config: type[Config]) -> Callable[[Prepare], Prepare]:
    """Decorator: make a reader known as ``name`` with the options of ``config``."""
    return CORPORA.register(name, config)


def prepare(name: str, root: str | Path, **options: Any) -> Prepared:
    """Read the corpus ``name`` that lies in ``root``; options as in the reader's config."""
    entry = CORPORA[name]
    return entry.target(Path(root), CORPORA.config(name, **options))
