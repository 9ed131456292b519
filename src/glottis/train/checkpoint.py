"""Checkpoints that a kill at any moment cannot break.

    checkpoints/step-00001200/   model.safetensors  the network, for everybody
                                 card.json          what it is, how it was made, how good it is
                                 state.pt           optimiser, loss head, counters: for resuming
    checkpoints/latest, best     links, replaced by rename

A checkpoint is written under a temporary name, fsynced and renamed.  Nothing is unpickled:
``state.pt`` is read with ``weights_only=True``.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glottis.errors import ModelError
from glottis.files import link, sync
from glottis.models import SpeakerModel, SpoofModel, read_state, save_model
from glottis.version import __version__

log = logging.getLogger(__name__)

STATE_FORMAT = 1  # raised when an older Glottis could misread a newer state


class CheckpointFolder:
    """The folder ``checkpoints`` of a run.

    keep: newest checkpoints that stay, besides the best.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def clean(self) -> None:
        """Remove what a kill left half-written."""
        for path in self.folder.glob(".*.tmp"):
            log.info("removing %s, left by an interrupted save", path.name)
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def save(
        self,
        model: SpeakerModel | SpoofModel,
        state: dict[str, Any],
        card: dict[str, Any],
        *,
        step: int,
        best: bool,
    ) -> Path:
        """Write ``step-NNNNNNNN`` and move the links; returns its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"step-{step:08d}"
        final = self.folder / name
        temporary = self.folder / f".{name}.{os.getpid()}.tmp"
        temporary.mkdir()
        save_model(model, temporary, card)
        torch.save(
            {"format": STATE_FORMAT, "glottis": __version__, **state}, temporary / "state.pt"
        )
        sync(temporary / "state.pt")
        sync(temporary)
        if final.exists():  # the same step again, after a resume from an earlier one
            doomed = self.folder / f".{name}.old.{os.getpid()}.tmp"
            os.rename(final, doomed)
            os.rename(temporary, final)
            shutil.rmtree(doomed)
        else:
            os.rename(temporary, final)
        sync(self.folder)
        if best:
            link(self.folder / "best", name)
        link(self.folder / "latest", name)
        self._prune()
        return final

    def complete(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(p for p in self.folder.glob("step-*") if (p / "state.pt").exists())

    def latest(self) -> Path | None:
        """The newest complete checkpoint (by name: a kill can come between rename and link)."""
        complete = self.complete()
        return complete[-1] if complete else None

    def _prune(self) -> None:
        best = (self.folder / "best").resolve() if (self.folder / "best").exists() else None
        for path in self.complete()[: -self.keep]:
            if path.resolve() != best:
                doomed = path.with_name(f".{path.name}.old.{os.getpid()}.tmp")
                os.rename(path, doomed)  # first out of sight: a kill leaves no half checkpoint
                shutil.rmtree(doomed)


def resumable(path: Path) -> Path:
    """The checkpoint that ``path`` means: itself, or the newest one of a run folder."""
    newest = path / "checkpoints" / "latest"
    checkpoint = newest if newest.exists() else path
    if not (checkpoint / "state.pt").is_file():
        raise ModelError(
            f"{path} is not a checkpoint to resume from: it has no state.pt",
            fix="give a folder such as runs/x/checkpoints/step-00001200, or runs/x",
        )
    return checkpoint


def load_state(checkpoint: Path, device: torch.device) -> dict[str, Any]:
    """The training state of a checkpoint; a newer format is refused."""
    path = resumable(checkpoint) / "state.pt"
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{path} cannot be read: {str(error).splitlines()[0]}",
            why="the file is damaged or was not written by Glottis",
            fix="resume from another checkpoint of the run",
        ) from error
    if state.get("format", 0) > STATE_FORMAT:
        raise ModelError(
            f"{path} was written by Glottis {state.get('glottis')}, this is {__version__}",
            why="its format is newer than this version can read",
            fix="pip install --upgrade glottis",
        )
    return state


def read_weights(path: Path) -> dict[str, Tensor]:
    """The network's tensors of a checkpoint folder, or of a weight file."""
    return read_state(path / "model.safetensors" if path.is_dir() else path)
