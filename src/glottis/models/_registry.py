"""The registry of networks: a name, a class and its options.

A network is one file with one decorator.  What its class has to say:

    task                  "speaker": forward gives (B, D); "spoof": forward gives a `SpoofOutput`
    input                 "wave": forward takes (B, S); "features": forward takes (B, F, T)
    default_features      the front end of a "features" network, as in a recipe; None for a wave
    window_seconds        what it hears at test time: None for a whole utterance, else the first
                          seconds of it (see `glottis.models.Window`)
    unused_parameters     name patterns of parameters that are kept for the sake of published
                          weights and never computed; they do not ask for a gradient
    embedding_size        D, set by the constructor
    min_samples | min_frames   the shortest input, for "wave" | "features"

and may say: ``original_name(name)``, the name of a tensor in the published checkpoints;
``original_options(state)``, the options and the front end that such a checkpoint implies;
``heavy_blocks``, the names of lists whose children are recomputed by activation checkpointing;
``draw(generator)``, the random tensors of one training step, passed to forward by keyword.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from glottis.config import Config
from glottis.registry import Registry

N = TypeVar("N", bound=type[nn.Module])

MODELS: Registry[Any] = Registry("model", "glottis.models")


def register_model(name: str, config: type[Config]) -> Callable[[N], N]:
    """Decorator: make a network class known as ``name`` with the options of ``config``."""
    return MODELS.register(name, config)
