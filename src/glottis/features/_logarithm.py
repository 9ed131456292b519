"""The logarithm of energies, with a floor, and decibel within a range of the loudest value.

Shapes: B batch, F features, T frames.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from glottis.config import Config
from glottis.errors import ConfigError

Log = Literal["natural", "log10", "db", "none"]


class LogConfig(Config):
    """How energies are compressed."""

    log: Log = "natural"
    """Natural logarithm, base 10, decibel, or none (the energies plus log_floor)."""
    log_floor: float = Field(1e-6, ge=0.0)
    """Added to the energies (natural, log10, none) or the least energy (db)."""
    dynamic_range_db: float | None = Field(None, gt=0.0)
    """With log db: values this far below the loudest one of the clip are raised to that line."""
    db_reference: Literal["one", "clip_maximum"] = "one"
    """With log db: what 0 dB is."""


class Logarithm:
    """(B, F, T) energies -> (B, F, T) compressed ones."""

    def __init__(self, config: LogConfig) -> None:
        self.log, self.floor = config.log, config.log_floor
        self.range_db = config.dynamic_range_db
        self.relative = config.db_reference == "clip_maximum"
        if self.log != "none" and self.floor == 0.0:
            raise ConfigError(
                "log_floor is 0 with a logarithm", why="silence would become -inf", fix="1e-10"
            )
        if self.log != "db" and (self.range_db is not None or self.relative):
            raise ConfigError(
                f"dynamic_range_db and db_reference do nothing with log '{self.log}'",
                fix="set log: db, or dynamic_range_db: null and db_reference: one",
            )

    def __call__(self, energy: Tensor) -> Tensor:
        """(B, F, T) -> (B, F, T)."""
        if self.log == "none":
            return energy + self.floor
        if self.log == "natural":
            return torch.log(energy + self.floor)
        if self.log == "log10":
            return torch.log10(energy + self.floor)
        level = 10.0 * torch.log10(energy.clamp_min(self.floor))
        loudest = level.amax(dim=(1, 2), keepdim=True)
        if self.range_db is not None:
            level = torch.maximum(level, loudest - self.range_db)
        return level - loudest if self.relative else level
