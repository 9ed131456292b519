"""Glottis: train, check, measure and serve voice-biometric models.

    model = glottis.create_model("resnetse34l", embedding_size=256)   # (B, S) -> (B, D)
    cm = glottis.import_weights("aasist", "AASIST.pth")
    model = glottis.load("runs/x/checkpoints/best")

``import glottis`` is fast: the rooms, and torch with them, are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from glottis.errors import (
    AudioError,
    ConfigError,
    DataError,
    MissingExtra,
    ModelError,
    ResultError,
    ToolkitError,
    TrainingStopped,
)
from glottis.version import __version__

if TYPE_CHECKING:
    from glottis.data import Manifest
    from glottis.models import create_model, import_weights
    from glottis.models import load_model as load
    from glottis.score.eer import eer as eer

# public name -> (room, its name there)
_LAZY = {
    "Manifest": ("glottis.data", "Manifest"),
    "create_model": ("glottis.models", "create_model"),
    "eer": ("glottis.score", "eer"),
    "import_weights": ("glottis.models", "import_weights"),
    "load": ("glottis.models", "load_model"),
}

__all__ = [
    "AudioError",
    "ConfigError",
    "DataError",
    "Manifest",
    "MissingExtra",
    "ModelError",
    "ResultError",
    "ToolkitError",
    "TrainingStopped",
    "__version__",
    "create_model",
    "eer",
    "import_weights",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'glottis' has no attribute '{name}'")
    room, inner = _LAZY[name]
    return getattr(importlib.import_module(room), inner)


def __dir__() -> list[str]:
    return __all__
