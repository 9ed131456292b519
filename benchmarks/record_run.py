"""One file with everything about a run whose result is published: card, selection, evaluations.

    python benchmarks/record_run.py RUN EVALUATION.json ... > benchmarks/results/NAME-DATE.json

RUN is a run folder; an EVALUATION is what ``glottis evaluate RUN ... --json`` printed.  Paths of
this machine are cut to what lies below the data.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any


def processor() -> str:
    """Its name, as the system gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


def without_paths(value: Any, root: str) -> Any:
    """The same data; text that begins with the folder of the data loses it."""
    if isinstance(value, dict):
        return {key: without_paths(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item, root) for item in value]
    if isinstance(value, str) and root and value.startswith(root):
        return value[len(root) :].lstrip("/")
    return value


def record(run: Path, evaluations: list[Path], root: str) -> dict[str, Any]:
    """Everything as one mapping."""
    card = json.loads((run / "run.json").read_text())
    card["command"] = "glottis " + card["command"].partition(" ")[2].replace(
        f"{run}", f"runs/{run.name}"
    )
    finished = json.loads((run / "finished.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    commands = [card["command"]]
    found = []
    for path in evaluations:
        result = without_paths(json.loads(path.read_text()), root)
        option = "--trials" if result["task"] == "speaker" else "--protocol"
        commands.append(
            f"glottis evaluate runs/{run.name} {option} SPEECH/{result['data']['file']}"
        )
        found.append(result)
    return {
        "what": f"run card and evaluation of '{card['description']}'",
        "date": card["started"][:10],
        "commands": commands,
        "machine": {"processor": processor(), "cores": os.cpu_count(), "gpu": None},
        "run": card,
        "finished": {k: v for k, v in finished.items() if k not in ("folder", "checkpoint")},
        "selection": [line for line in lines if any(key.startswith("dev/") for key in line)],
        "evaluations": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("evaluations", type=Path, nargs="*")
    parser.add_argument("--root", default=os.environ.get("GLOTTIS_SHARED", "") + "/speech")
    arguments = parser.parse_args()
    result = record(arguments.run, arguments.evaluations, arguments.root)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
