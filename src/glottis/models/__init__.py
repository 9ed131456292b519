"""Networks, their front ends, their weights: one file per architecture, one decorator each."""

from __future__ import annotations

from glottis.models._interface import Reconstructed, SpoofOutput
from glottis.models._registry import MODELS, register_model
from glottis.models.ensemble import Ensemble, combine_embeddings, load_ensemble
from glottis.models.inference import Window, infer
from glottis.models.io import load_model, plain_state, read_card, save_model
from glottis.models.system import (
    Detection,
    Model,
    SpeakerModel,
    SpoofModel,
    Verification,
    build_model,
    create_model,
)
from glottis.models.weights import (
    LoadReport,
    import_weights,
    import_with_report,
    load_weights,
    read_state,
)

__all__ = [
    "MODELS",
    "Detection",
    "Ensemble",
    "LoadReport",
    "Model",
    "Reconstructed",
    "SpeakerModel",
    "SpoofModel",
    "SpoofOutput",
    "Verification",
    "Window",
    "build_model",
    "combine_embeddings",
    "create_model",
    "import_weights",
    "import_with_report",
    "infer",
    "load_ensemble",
    "load_model",
    "load_weights",
    "plain_state",
    "read_card",
    "read_state",
    "register_model",
    "save_model",
]
