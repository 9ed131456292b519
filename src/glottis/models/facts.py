"""What is known about a registered model, computed from the model itself.

    facts("aasist").parameters           # 297866
    facts("aasist").gflop_per_second     # 4.73, multiply-add = 2 FLOP, per second of audio

A network is built on the meta device and shown the shape of a clip of 3 seconds: nothing is
allocated, and all models together take seconds.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from glottis.errors import MissingExtra
from glottis.models._cost import Shapes
from glottis.models._formats import importers
from glottis.models._parity import Parity, Status
from glottis.models._registry import MODELS, parity_of
from glottis.models.system import Model, create_model

SECONDS = 3.0
"""length of the clip that operations are counted for"""


@dataclass(frozen=True)
class Size:
    """What depends on the network, at its default options.

    parameters: values of all parameters; trainable: of those that training changes.
    gflop_per_second: from the waveform to the output in eval mode, the front end included; what is
    counted is said in `glottis.models._cost`.  front_end_gflop_per_second: the front end's part, 0
    for a waveform network.  min_samples: the shortest input, at ``sample_rate``.
    uncounted: torch's names of the other operations.
    """

    parameters: int
    trainable: int
    gflop_per_second: float
    front_end_gflop_per_second: float
    front_end: str
    embedding_size: int
    sample_rate: int
    min_samples: int
    uncounted: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What is known about a model.

    summary: one line.  reference: who published it.  parity: what shows that it is the published
    network.  formats: kinds of published checkpoints that it reads.  size: None if the model needs
    an optional dependency that is not installed; ``needs`` is its name.
    """

    name: str
    task: str
    summary: str
    reference: str
    parity: Parity
    formats: tuple[str, ...]
    size: Size | None
    needs: str = ""

    @property
    def status(self) -> Status:
        """In words: golden, published count, ours."""
        return self.parity.status

    def row(self) -> dict[str, Any]:
        """Plain data, for JSON and tables."""
        size = self.size
        return {
            "name": self.name,
            "task": self.task,
            "summary": self.summary,
            "parameters": None if size is None else size.parameters,
            "trainable": None if size is None else size.trainable,
            "gflop_per_second": None if size is None else size.gflop_per_second,
            "front_end_gflop_per_second": (
                None if size is None else size.front_end_gflop_per_second
            ),
            "front_end": None if size is None else size.front_end,
            "embedding_size": None if size is None else size.embedding_size,
            "sample_rate": None if size is None else size.sample_rate,
            "min_samples": None if size is None else size.min_samples,
            "reference": self.reference,
            "parity": self.status,
            "evidence": self.parity.evidence,
            "formats": list(self.formats),
            "needs": self.needs,
        }


@cache
def facts(name: str) -> Facts:
    """Everything about the model ``name``; computed once per process."""
    target = MODELS[name].target
    size, needs = None, ""
    try:
        size = _size(_on_meta(name))
    except MissingExtra as error:
        needs = error.extra
    parity = parity_of(name)
    return Facts(
        name=name,
        task=target.task,
        summary=summary_of(name),
        reference=getattr(target, "reference", ""),
        parity=Parity("ours", "not stated") if parity is None else parity,
        formats=tuple(kind.name for kind in importers(name)),
        size=size,
        needs=needs,
    )


def summary_of(name: str) -> str:
    """One line: the first of its file, or of its options where several models share the file."""
    entry = MODELS[name]
    shared = sum(other.module == entry.module for other in MODELS) > 1
    text = entry.config.__doc__ if shared else sys.modules[entry.module].__doc__
    return (text or entry.summary).strip().splitlines()[0]


def _on_meta(name: str) -> Model:
    """The model with shapes instead of values."""
    with torch.device("meta"), Shapes():
        model = create_model(name, seed=0)
    return model.to("meta").eval()


def _size(model: Model) -> Size:
    frontend = model.frontend
    samples = max(round(SECONDS * model.sample_rate), model.min_samples)
    seconds = samples / model.sample_rate
    wave = torch.empty(1, samples, device="meta")
    with torch.inference_mode():
        with Shapes() as before:
            x = wave if frontend is None else frontend(wave)
        with Shapes() as inside:
            model.network(x)
    parameters = list(model.parameters())
    return Size(
        parameters=model.num_parameters,
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        gflop_per_second=(before.total + inside.total) / seconds / 1e9,
        front_end_gflop_per_second=before.total / seconds / 1e9,
        front_end=_front_end(model),
        embedding_size=model.embedding_size,
        sample_rate=model.sample_rate,
        min_samples=model.min_samples,
        uncounted=tuple(sorted(before.uncounted | inside.uncounted)),
    )


def _front_end(model: Model) -> str:
    """``waveform``, or the name of the front end and how many values a frame has."""
    if model.frontend is None or model.features_config is None:
        return "waveform"
    return f"{getattr(model.features_config, 'name')} {model.frontend.num_features}"  # noqa: B009
