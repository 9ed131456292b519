"""The registry of networks: a name, a class and its options.

A network is one file with one decorator.  The decorator says what shows that it is the published
network (`glottis.models._parity`).  What its class has to say:

    reference             who published it, where and when, in one line
    task                  "speaker": forward gives (B, D); "spoof": forward gives a `SpoofOutput`
    input                 "wave": forward takes (B, S); "features": forward takes (B, F, T)
    default_features      the front end of a "features" network, as in a recipe; None for a wave
    window_seconds        what it hears at test time: None for a whole utterance, else the first
                          seconds of it (see `glottis.models.Window`)
    unused_parameters     name patterns of parameters that are kept for the sake of published
                          weights and never computed; they do not ask for a gradient
    embedding_size        D, set by the constructor
    classifier            of a "spoof" network: the module that makes logits of embeddings, and
                          nothing else; a loss may ask for another one in its place
    min_samples | min_frames   the shortest input, for "wave" | "features"

and may say:

    heavy_blocks          names of lists whose children are recomputed by activation checkpointing
    draw(generator)       the random tensors of one training step, passed to forward by keyword
    statistics()          detached scalars of what it has learned, by name, for the log
    resolved_config       the config with what files of others implied written out, so that the
                          model's own folder is all that it needs
    reconstruct           True if forward in training gives a `Reconstructed`; an option sets it

and, where there are published checkpoints:

    original_name(name)         the name of our tensor in such a file
    original_prefixes           words that the trainer puts before every name
    original_extras             name patterns of tensors that are no part of the network
    original_options(state)     options and front-end options that the tensors of a file imply
    original_config(content, arch)   the same from what a torch file holds beside its tensors (a
                                dict with a stored configuration, the step ...), if it describes
                                the model ``arch``; it overrules the shapes
    original_for                the registered names that read such files; without it, all names of
                                the class.  A name whose published tensors nobody listed is not
                                among them: no map of names is guessed
    formats                     instead of all these: several kinds of checkpoint, each a
                                `glottis.models._formats.Format` with the same parts
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from glottis.config import Config
from glottis.models._parity import Parity
from glottis.registry import Registry

N = TypeVar("N", bound=type[nn.Module])

MODELS: Registry[Any] = Registry("model", "glottis.models")


_PARITY: dict[str, Parity] = {}


def register_model(
    name: str, config: type[Config], *, parity: Parity | None = None
) -> Callable[[N], N]:
    """Decorator: make a network class known as ``name`` with the options of ``config``.

    parity: what shows that it is the published network; a contract test asks for it.
    """
    if parity is not None:
        _PARITY[name] = parity
    return MODELS.register(name, config)


def parity_of(name: str) -> Parity | None:
    """What the model ``name`` was registered with."""
    MODELS[name]  # known, and found
    return _PARITY.get(name)
