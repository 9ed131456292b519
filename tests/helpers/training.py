"""One step of a recipe on the corpus of tones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from glottis.train.assemble import assemble
from glottis.train.engine import Trainer
from glottis.train.step import step
from helpers.tones import recipe, speaker_tree


def trainer(tones: Path, tmp_path: Path, make: Any = speaker_tree, **changes: Any) -> Trainer:
    """A trainer without selection (unless ``evaluate`` is given), its folder below tmp_path."""
    return assemble(recipe(make(tones, **{"evaluate": {}, **changes})), tmp_path / "run").trainer


def one_step(made: Trainer, index: int = 0, *, measure: bool = False) -> dict[str, torch.Tensor]:
    """Step ``index`` of the run, with the recipe's accumulation and clipping."""
    made.task.train()
    batch = next(made.loader.batches(index, index + 1))
    phase = made.phase
    return step(
        made.task,
        batch,
        made.optim,
        made.precision,
        pieces=made.pieces,
        clip_norm=phase.clip_norm,
        measure=measure,
    )
