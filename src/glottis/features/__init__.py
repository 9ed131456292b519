"""Front ends: batched, device-agnostic, float32 under autocast, exportable."""

from __future__ import annotations

from glottis.features._frontend import FrontEnd, FrontEndConfig, Normalise, normalise_over_time
from glottis.features._registry import FEATURES, build_features, register_feature

__all__ = [
    "FEATURES",
    "FrontEnd",
    "FrontEndConfig",
    "Normalise",
    "build_features",
    "normalise_over_time",
    "register_feature",
]
