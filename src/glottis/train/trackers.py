"""Listeners of the metrics: TensorBoard and Weights & Biases.

``metrics.jsonl`` is the source of truth; these are copies.  A tracker that fails is switched off
with one line in the log and never stops the training.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from glottis.errors import MissingExtra
from glottis.train.recipe import LogConfig

log = logging.getLogger(__name__)

WANDB_SERVICE = "https://api.wandb.ai"
PROBE_SECONDS = 3.0


class Tracker(Protocol):
    """Takes the numbers of a step."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoardTracker:
    """Scalars for ``tensorboard --logdir RUN/tensorboard``."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra("tensorboard", "track", "log.tensorboard") from None
        self.writer = SummaryWriter(str(folder / "tensorboard"))  # type: ignore[no-untyped-call]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
        self.writer.flush()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self.writer.close()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class WandbOptions:
    """Where a run goes in Weights & Biases; mode: auto, online or offline."""

    project: str
    tags: tuple[str, ...]
    mode: str


class WandbTracker:
    """A Weights & Biases run; the key comes from WANDB_API_KEY or ``.env`` and is never stored."""

    def __init__(
        self, folder: Path, options: WandbOptions, name: str, recipe: dict[str, Any]
    ) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtra("wandb", "track", "log.wandb_project") from None
        _read_env_file(Path(".env"))
        mode: Any = options.mode
        if mode == "auto":
            mode = "online" if os.environ.get("WANDB_API_KEY") and _reachable() else "offline"
            log.info("Weights & Biases: %s", mode)
        self.run = wandb.init(
            project=options.project,
            tags=list(options.tags),
            name=name,
            dir=str(folder),
            config=recipe,
            mode=mode,
            resume="allow",
            id=name,
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class Trackers:
    """All trackers of a run; a failing one is dropped, the run goes on."""

    def __init__(self, makers: Mapping[str, Callable[[], Tracker]]) -> None:
        self._active: dict[str, Tracker] = {}
        for name, make in makers.items():
            self._guard(name, lambda name=name, make=make: self._active.update({name: make()}))  # type: ignore[misc]

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        for name, tracker in list(self._active.items()):
            self._guard(name, lambda tracker=tracker: tracker.log(step, numbers))  # type: ignore[misc]

    def close(self) -> None:
        for name, tracker in list(self._active.items()):
            self._guard(name, tracker.close)

    def _guard(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except MissingExtra:
            raise
        except Exception as error:  # a tracker may fail in any way; the run must not
            self._active.pop(name, None)
            log.warning("%s failed and is switched off for this run: %s", name, error)


def make_trackers(
    folder: Path, config: LogConfig, run_id: str, recipe: dict[str, Any], *, active: bool
) -> Trackers:
    """The trackers that the recipe asks for; none in a process that is not ``active``."""
    makers: dict[str, Callable[[], Tracker]] = {}
    tensorboard, project = config.tensorboard, config.wandb_project
    wandb = WandbOptions(project or "", config.wandb_tags, config.wandb_mode)
    if tensorboard and active:
        makers["TensorBoard"] = lambda: TensorBoardTracker(folder)
    if project is not None and active:
        makers["Weights & Biases"] = lambda: WandbTracker(folder, wandb, run_id, recipe)
    return Trackers(makers)


def _read_env_file(path: Path) -> None:
    """Names that ``.env`` sets and the environment does not (python-dotenv, if installed)."""
    if not path.exists():
        return
    try:
        from dotenv import load_dotenv
    except ImportError:
        log.warning(".env is not read: python-dotenv is not installed (extra 'track')")
        return
    load_dotenv(path, override=False)


def _reachable() -> bool:
    url = urlparse(os.environ.get("WANDB_BASE_URL", WANDB_SERVICE))
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((url.hostname or "", port), timeout=PROBE_SECONDS).close()
    except OSError:
        return False
    return True
