"""Checkpoints that a kill at any moment cannot break.

    checkpoints/step-00001200/   model.safetensors  the network, for everybody
                                 card.json          what it is, how it was made, how good it is
                                 state.pt           optimiser, loss head, counters: for resuming
    checkpoints/average/         the mean of some (`glottis.train.averaging`), without state.pt
    checkpoints/latest, best     links, replaced by rename

A checkpoint is written under a temporary name, fsynced and renamed; a write that fails (a full
disk) stops the run and leaves the earlier checkpoints as they are.  Nothing is unpickled:
``state.pt`` is read with ``weights_only=True``.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glottis.errors import ModelError, ToolkitError, TrainingStopped
from glottis.files import atomic_path, link, sync, write_json
from glottis.models import SpeakerModel, SpoofModel, read_card, read_state, save_model
from glottis.models.io import CARD_FILE
from glottis.version import __version__

log = logging.getLogger(__name__)

STATE_FORMAT = 1  # raised when an older Glottis could misread a newer state


@contextmanager
def writing(what: str) -> Iterator[None]:
    """A write of the run: if the system refuses it (a full disk), the run stops (rule F9)."""
    try:
        yield
    except (OSError, ToolkitError) as error:
        cause = error.seen if isinstance(error, ToolkitError) else error.strerror or error
        raise TrainingStopped(
            f"{what} cannot be written: {cause}",
            why="a run that cannot save its work would lose it; the saved checkpoints are intact",
            fix="free some space (or make the folder writable), then continue with --resume",
            rule="F9",
        ) from error


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
        also: Collection[int] = (),
    ) -> Path:
        """Write ``step-NNNNNNNN`` and move the links; returns its path.

        also: steps whose checkpoints stay, besides the best and the newest.
        Raises TrainingStopped if it cannot be written; nothing half-written stays.
        """
        final = self.path(step)
        name = final.name
        temporary = self.folder / f".{name}.{os.getpid()}.tmp"
        with writing(f"the checkpoint of step {step}"):
            try:
                self._write(temporary, model, state, card)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)  # its space is needed now
                raise
            self._put(temporary, final)
            if best:
                link(self.folder / "best", name)
            link(self.folder / "latest", name)
            self._prune(final, also)
        return final

    def save_average(self, model: SpeakerModel | SpoofModel, card: dict[str, Any]) -> Path:
        """Write ``average``: network and card; there is nothing to resume from."""
        final = self.folder / "average"
        temporary = self.folder / f".average.{os.getpid()}.tmp"
        with writing("the averaged checkpoint"):
            try:
                save_model(model, temporary, card)
                sync(temporary)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            self._put(temporary, final)
        return final

    def annotate(self, name: str, extra: dict[str, Any]) -> None:
        """Add to the key ``extra`` of a checkpoint's card."""
        card = read_card(self.folder / name)
        card["extra"] |= extra
        with writing(f"the card of '{name}'"):
            write_json(self.folder / name / CARD_FILE, card)

    def _write(
        self,
        folder: Path,
        model: SpeakerModel | SpoofModel,
        state: dict[str, Any],
        card: dict[str, Any],
    ) -> None:
        folder.mkdir(parents=True)
        save_model(model, folder, card)
        # through memory: torch's own writer hides why the disk refused
        buffer = io.BytesIO()
        torch.save({"format": STATE_FORMAT, "glottis": __version__, **state}, buffer)
        with atomic_path(folder / "state.pt") as path:
            path.write_bytes(buffer.getbuffer())
        sync(folder)

    def _put(self, temporary: Path, final: Path) -> None:
        if final.exists():  # the same again, after a resume from an earlier step
            doomed = final.with_name(f".{final.name}.old.{os.getpid()}.tmp")
            os.rename(final, doomed)
            os.rename(temporary, final)
            shutil.rmtree(doomed)
        else:
            os.rename(temporary, final)
        sync(self.folder)

    def complete(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(p for p in self.folder.glob("step-*") if (p / "state.pt").exists())

    def latest(self) -> Path | None:
        """The checkpoint that was written last: the link's, or (without one) the newest by name.

        The two differ after a run went back to an earlier checkpoint, and after a kill between
        rename and link; then one interval is made again, bit for bit.
        """
        linked = self.folder / "latest"
        if (linked / "state.pt").exists():
            return self.folder / linked.readlink().name
        complete = self.complete()
        return complete[-1] if complete else None

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.folder / f"step-{step:08d}"

    def holds(self, step: int) -> bool:
        """Whether the checkpoint of this step is here and complete."""
        return (self.path(step) / "state.pt").exists()

    def point_best(self, step: int | None) -> None:
        """Make ``best`` the one of this step (None: no link), after going back."""
        if step is not None:
            link(self.folder / "best", self.path(step).name)
        else:
            (self.folder / "best").unlink(missing_ok=True)

    def _prune(self, newest: Path, also: Collection[int] = ()) -> None:
        """Keep ``keep`` up to the newest; later ones are those of a run that went back."""
        stay = {self.path(step).resolve() for step in also}
        if (self.folder / "best").exists():
            stay.add((self.folder / "best").resolve())
        made = [path for path in self.complete() if path.name <= newest.name]
        for path in made[: -self.keep]:
            if path.resolve() not in stay:
                doomed = path.with_name(f".{path.name}.old.{os.getpid()}.tmp")
                os.rename(path, doomed)  # first out of sight: a kill leaves no half checkpoint
                shutil.rmtree(doomed)


def step_of(folder: Path) -> int:
    """The step of a checkpoint folder."""
    return int(folder.name.removeprefix("step-"))


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


def phase_of(checkpoint: Path) -> tuple[int, bool]:
    """The phase that a checkpoint was saved in, and whether a guard had frozen parts again."""
    state = load_state(checkpoint, torch.device("cpu"))
    return int(state.get("phase", 0)), bool(state.get("refrozen", False))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The network's tensors of a checkpoint folder, or of a weight file."""
    return read_state(path / "model.safetensors" if path.is_dir() else path)
