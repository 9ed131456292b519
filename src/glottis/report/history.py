"""The metrics of a run, as the run folder holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def events_of(checkpoint: Path) -> list[str]:
    """What guards did in the run of a checkpoint (or run folder), a sentence each."""
    folder = checkpoint.resolve()
    run = next((one for one in (folder, *folder.parents[:2]) if (one / "run.json").is_file()), None)
    if run is None:
        return []
    lines = [line for line in read_metrics(run) if "event" in line]
    return [f"training, step {line['step']}: {line['why']}: {line['done']}" for line in lines]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All metric lines of a run, oldest first; a line cut off by a kill is left out."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records
