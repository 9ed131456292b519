"""Where front ends are known by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glottis.config import Config
from glottis.features._frontend import FrontEnd
from glottis.registry import Registry

FEATURES: Registry[Callable[[Any], FrontEnd]] = Registry("front end", "glottis.features")
register_feature = FEATURES.register


def build_features(config: Config) -> FrontEnd:
    """The front end that a config from a recipe (or from ``FEATURES.config``) describes."""
    return FEATURES.entry_of(config).target(config)
