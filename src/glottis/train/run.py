"""The run folder: identity, resolved recipe, metrics, log, checkpoints.

recipe.yaml     the resolved recipe          run.json       identity, versions, hashes, resumes
metrics.jsonl   the source of truth          train.log      everything that was said
checkpoints/    see `checkpoint`             quarantine.jsonl  broken files
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import glottis
from glottis.config import differences, fingerprint, identity_tree, to_yaml
from glottis.errors import ConfigError
from glottis.files import write_json, write_text
from glottis.train.checkpoint import CheckpointFolder, writing
from glottis.train.recipe import Recipe
from glottis.version import __version__

log = logging.getLogger(__name__)


def code_hash() -> str:
    """16 hex digits over the sources of this package."""
    root = Path(glottis.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Run:
    """One run folder.

    A folder that holds another run is refused (rule C9); one that holds this run needs ``resume``.
    A resumed run keeps its id and the moment of its first start; each continuation is added to
    ``resumes`` in ``run.json``, with its own code and versions.
    data_hashes: sha256 of every list and table that goes into the run, unedited.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        data_hashes: Mapping[str, str],
        *,
        resume: bool = False,
        primary: bool = True,
    ) -> None:
        self.folder, self.primary = folder, primary
        identity = {"config": fingerprint(recipe), "data": dict(data_hashes), "code": code_hash()}
        text = json.dumps(identity, sort_keys=True)
        self.run_id = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.identity = identity
        self.checkpoints = CheckpointFolder(folder / "checkpoints", recipe.checkpoint.keep)
        self._tree = json.loads(json.dumps(identity_tree(recipe)))
        self.card = self._card(recipe.description)
        earlier = self._check_folder(resume)
        self.continues = resume and earlier is not None
        if earlier is not None and resume:
            self._take_over(earlier)
        if not primary:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.checkpoints.clean()
        write_text(folder / "recipe.yaml", to_yaml(recipe))
        write_json(folder / "run.json", self.card)

    @property
    def resumes(self) -> list[dict[str, Any]]:
        """The continuations of this run so far, oldest first."""
        resumes: list[dict[str, Any]] = self.card["resumes"]
        return resumes

    def resumed(self, step: int, checkpoint: Path | None) -> None:
        """Write down that the run goes on after ``step`` (None: nothing had been saved)."""
        self.resumes.append(
            {
                "resumed": _now(),
                "step": step,
                "checkpoint": None if checkpoint is None else str(checkpoint),
                "code": code_hash(),
                "glottis": __version__,
                "torch": torch.__version__,
                "command": " ".join(sys.argv),
            }
        )
        if self.primary:
            write_json(self.folder / "run.json", self.card)

    def _take_over(self, earlier: dict[str, Any]) -> None:
        """Be the run that ``earlier`` describes; what was never saved is begun by this code."""
        kept = {"started": earlier["started"], "resumes": earlier.get("resumes", [])}
        if self.checkpoints.latest() is None:
            self.card |= kept
            return
        self.card = earlier | kept
        self.run_id, self.identity = earlier["run_id"], earlier["identity"]

    def _card(self, description: str) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "description": description,
            "identity": self.identity,
            "recipe": self._tree,
            "glottis": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "machine": {
                "platform": platform.platform(),
                "processor": _processor(),
                "threads": torch.get_num_threads(),
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            },
            "command": " ".join(sys.argv),
            "started": _now(),
            "resumes": [],
        }

    def _check_folder(self, resume: bool) -> dict[str, Any] | None:
        """The card of the run in the folder, if there is one and it may go on."""
        path = self.folder / "run.json"
        if not path.exists():
            return None
        old: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        changes = differences(old["recipe"], self._tree)
        if changes:
            raise ConfigError(
                f"{self.folder} holds a run with another recipe:\n  " + "\n  ".join(changes[:10]),
                why="two runs in one folder cannot be told apart afterwards",
                fix="choose another --out, or undo the changes to continue that run",
                rule="C8" if resume else "C9",
            )
        if old["identity"]["data"] != self.identity["data"]:
            raise ConfigError(
                f"the data of the run in {self.folder} have changed since it was started",
                why="a run on two versions of its data has no meaning",
                fix="restore the data, or choose another --out",
                rule="C8" if resume else "C9",
            )
        if old["identity"]["code"] != self.identity["code"]:
            log.warning("the code has changed since the run in %s was started", self.folder)
        if not resume and self.checkpoints.latest() is not None:
            raise ConfigError(
                f"{self.folder} holds this run already, with checkpoints",
                fix="continue it with --resume, or choose another --out",
                rule="C9",
            )
        return old

    def forget_after(self, step: int) -> None:
        """Drop metric lines of what the resumed run makes again: later steps, the average."""
        path = self.folder / "metrics.jsonl"
        if not self.primary or not path.exists():
            return
        kept = []
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a killed run
            of_the_end = any(name.startswith("average/") for name in record)
            if record["step"] <= step and not of_the_end:
                kept.append(line)
        write_text(path, "".join(f"{line}\n" for line in kept))

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to the metrics (non-finite numbers become null: JSON has none)."""
        if not self.primary:
            return
        record = {"step": step, **{key: _plain(value) for key, value in values.items()}}
        path = self.folder / "metrics.jsonl"
        with writing(str(path)), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _processor() -> str:
    """The processor's name as the system tells it."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
