"""What every augmentation promises: parameters are drawn in the worker, applied on the device.

`draw` needs a generator and no audio; its result is a frozen dataclass of plain numbers that can be
logged and replayed.  `apply` is a deterministic function of the batch and of those parameters.
Shapes: B batch, S samples, F features, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from glottis.config import Config

P = TypeVar("P")

Stage = Literal["source", "wave", "features", "batch"]


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"a range is [low, high], not [{pair[0]:g}, {pair[1]:g}]")
    return pair


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""(low, high), both included; equal bounds fix the value."""


@dataclass(frozen=True)
class AugmentContext:
    """What augmentations need to know about the run.

    sample_rate: of the waveforms, in hertz.  root: ``data.root``; sources are named relative to it.
    seed: of simulated noise and rooms, and of the choice of excerpts from a large noise corpus.
    """

    sample_rate: int = 16000
    root: Path = Path(".")
    seed: int = 0


class AugmentationConfig(Config):
    """Options that every augmentation has."""

    probability: float = Field(1.0, ge=0.0, le=1.0)
    """Share of the clips that it is applied to."""
    one_of: str | None = None
    """Entries with the same word exclude each other; their probabilities add up to at most 1."""


class Augmentation(Generic[P]):
    """Base of the augmentations: chance, selection of the items concerned, counts.

    stage: "source" changes how many samples are read, "wave" keeps (B, S), "features" works on
    (B, F, T), "batch" mixes items.
    params_type: the dataclass that `sample` returns.
    A subclass implements `sample` and `change` (or, for "batch", `apply`).
    """

    stage: ClassVar[Stage] = "wave"
    params_type: ClassVar[type[Any]]

    def __init__(self, config: AugmentationConfig, context: AugmentContext) -> None:
        self.config = config
        self.probability, self.one_of = config.probability, config.one_of
        self.sample_rate = context.sample_rate
        self._counts: dict[str, Tensor] = {}

    def draw(self, rng: np.random.Generator, num_samples: int, strength: float = 1.0) -> P | None:
        """Parameters for one clip of ``num_samples``, or None: not applied.

        strength: factor on the probability.
        """
        applied = rng.random() < self.probability * strength
        return self.sample(rng, num_samples) if applied else None

    def sample(self, rng: np.random.Generator, num_samples: int) -> P | None:
        """Parameters for one clip that is to be augmented."""
        raise NotImplementedError

    def apply(self, x: Tensor, params: Sequence[P | None]) -> Any:
        """The batch with each item changed by its own parameters; None leaves an item alone."""
        assert len(params) == len(x), "one set of parameters per item"
        rows = [row for row, drawn in enumerate(params) if drawn is not None]
        if not rows:
            return x
        chosen = [drawn for drawn in params if drawn is not None]
        if x.device.type == "cpu":  # clip by clip: it stays in the cache, and in no company
            result = x.clone()
            for row, drawn in zip(rows, chosen, strict=True):
                result[row : row + 1] = self.change(x[row : row + 1], [drawn])
            return result
        if len(rows) == len(x):
            return self.change(x, chosen)
        index = indices(rows, x.device)
        return x.index_copy(0, index, self.change(x.index_select(0, index), chosen))

    def change(self, x: Tensor, params: Sequence[P]) -> Tensor:
        """The items (n, S) or (n, F, T) that are augmented, with their parameters."""
        raise NotImplementedError

    def to(self, device: torch.device | str) -> Self:
        """Move what `apply` needs."""
        return self

    def card(self) -> dict[str, Any]:
        """For the run card: what data it draws from, with a hash of the content."""
        return {}

    def count(self, what: str, items: Tensor) -> None:
        """Add up a mask of items on its device; nothing waits for the result."""
        total = items.sum()
        self._counts[what] = self._counts[what] + total if what in self._counts else total

    def counts(self) -> dict[str, int]:
        """What `count` added up so far (waits for the device)."""
        return {what: int(total) for what, total in self._counts.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Workers only draw: nothing on a device travels to them."""
        return {**self.__dict__, "_counts": {}}


def column(values: Sequence[float], device: torch.device) -> Tensor:
    """(n, 1) float32 on the device; the copy does not wait for work in flight."""
    return torch.tensor(values, dtype=torch.float32).unsqueeze(1).to(device, non_blocking=True)


def indices(values: Sequence[int], device: torch.device) -> Tensor:
    """(n,) int64 on the device; the copy does not wait for work in flight."""
    return torch.tensor(values, dtype=torch.int64).to(device, non_blocking=True)
