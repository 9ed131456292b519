"""Training: a recipe becomes a run folder."""

from __future__ import annotations

from glottis.train.api import train_recipe
from glottis.train.recipe import Recipe, load_recipe

__all__ = ["Recipe", "load_recipe", "train_recipe"]
