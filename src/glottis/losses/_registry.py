"""The registry of losses: a name, a class and its options.

A loss is one file with one decorator.  It owns its class weights and whatever else it learns, and
it is part of the task whose parameters the optimiser gets.  What its class says:

    reference   who published it, where and when, in one line
    task    "speaker" or "spoof"
    batch   "flat": x is (B, ...), labels (B,); "grouped": x is (P, K, D), labels (P,), K utterances
            of each of P speakers
    input   "embedding": x ends in D values of an embedding; "logits": in K class scores

and may say: ``classifier``, the kind of last layer that a countermeasure is to have ("linear",
"one_class", "cosine"); ``scores(x)``, the (B, K) class scores without margin, for distillation;
``mass(labels)``, what the loss divides by where that is not the number of items, so
that a batch computed in pieces (or by several processes) has the gradient of the whole.

The constructor takes (config, embedding_size, num_classes); forward(x, labels, weights=None) gives
a `LossOutput`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from glottis.config import Config
from glottis.registry import Registry

N = TypeVar("N", bound=type[nn.Module])

LOSSES: Registry[Any] = Registry("loss", "glottis.losses")


def register_loss(name: str, config: type[Config]) -> Callable[[N], N]:
    """Decorator: make a loss class known as ``name`` with the options of ``config``."""
    return LOSSES.register(name, config)


def build_loss(config: Config, embedding_size: int, num_classes: int) -> Any:
    """The loss that a config from a recipe (or from ``LOSSES.config``) describes."""
    return LOSSES.entry_of(config).target(config, embedding_size, num_classes)
