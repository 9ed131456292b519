"""Where augmentations are known by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glottis.augment._base import Augmentation
from glottis.registry import Registry

AUGMENTATIONS: Registry[Callable[[Any, Any], Augmentation[Any]]] = Registry(
    "augmentation", "glottis.augment"
)
register_augmentation = AUGMENTATIONS.register
