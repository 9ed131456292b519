"""Losses for both tasks; each owns what it learns and states its chance and collapse values."""

from __future__ import annotations

from glottis.losses._common import LossOutput
from glottis.losses._registry import LOSSES, build_loss, register_loss

__all__ = ["LOSSES", "LossOutput", "build_loss", "register_loss"]
