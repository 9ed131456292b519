"""Learning-rate schedules: the factor on the peak rate as a function of applied steps.

The count of applied steps is a device tensor, so a step that was skipped as non-finite does not
advance the schedule and nothing waits for the device.  ``n`` counts from 0 and is the step about to
be made.  Warm-up is linear from ``1/w`` of the peak to the peak over the first w steps.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from glottis.config import Config


class _Warm(Config):
    warmup_steps: int | None = Field(None, ge=1)
    """Steps of linear warm-up; leave it out for none."""

    def lengths(self, steps: int, steps_per_epoch: int) -> tuple[int, int, int]:
        """(warm-up steps, steps after it, steps of an epoch)."""
        warmup = self.warmup_steps or 0
        return warmup, max(1, steps - warmup), steps_per_epoch


class ConstantConfig(_Warm):
    """The peak rate to the end."""

    name: Literal["constant"] = "constant"


class CosineConfig(_Warm):
    """Half a cosine from the peak to ``final_factor`` of it at the last step."""

    name: Literal["cosine"] = "cosine"
    final_factor: float = Field(0.0, ge=0, le=1)
    """Rate at the end, as a share of the peak (AASIST: 0.05)."""


class StepConfig(_Warm):
    """Times ``factor`` every ``every_epochs`` epochs."""

    name: Literal["step"] = "step"
    factor: float = Field(0.95, gt=0, le=1)
    """What the rate is multiplied by at each drop."""
    every_epochs: int = Field(10, ge=1)
    """Epochs between two drops."""


class ExponentialConfig(_Warm):
    """A steady decay that reaches ``final_factor`` of the peak at the last step."""

    name: Literal["exponential"] = "exponential"
    final_factor: float = Field(0.01, gt=0, le=1)
    """Rate at the end, as a share of the peak."""


ScheduleConfig = Annotated[
    ConstantConfig | CosineConfig | StepConfig | ExponentialConfig, Field(discriminator="name")
]


class Schedule:
    """``factor(n)`` for a device tensor ``n`` (applied steps): a device tensor.

    steps: length of the phase.  steps_per_epoch: for the schedules that count epochs.
    """

    def __init__(
        self,
        config: ConstantConfig | CosineConfig | StepConfig | ExponentialConfig,
        steps: int,
        steps_per_epoch: int,
    ) -> None:
        self.config, self.steps = config, steps
        self.warmup, self.rest, self.epoch = config.lengths(steps, steps_per_epoch)
        self.kind = config.name
        self.final = getattr(config, "final_factor", 1.0)
        self.drop = getattr(config, "factor", 1.0)
        self.every = getattr(config, "every_epochs", 1)

    def curve(self) -> Tensor:
        """(steps,) factors of the whole phase."""
        return self.factor(torch.arange(self.steps, dtype=torch.float64))

    def factor(self, applied: Tensor) -> Tensor:
        """Share of the peak rate for the step after ``applied`` applied ones."""
        n = applied
        after = n - self.warmup
        progress = (after / max(1, self.rest - 1)).clamp(0, 1)
        if self.kind == "cosine":
            value = self.final + (1 - self.final) * (1 + torch.cos(math.pi * progress)) / 2
        elif self.kind == "exponential":
            value = torch.exp(math.log(self.final) * progress)
        elif self.kind == "step":
            drops = torch.floor(n / (self.epoch * self.every))
            value = torch.exp(math.log(self.drop) * drops)
        else:
            value = torch.ones_like(n)
        if self.warmup == 0:
            return value
        return torch.where(n < self.warmup, (n + 1) / self.warmup, value)
