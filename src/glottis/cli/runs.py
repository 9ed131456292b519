"""``glottis runs [DIR] [--watch]``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import typer

from glottis.cli._output import JSON_OPTION, print_json, print_table

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def runs(
    folder: Path = typer.Argument(Path("runs"), help="Folder of run folders."),
    watch: bool = typer.Option(False, "--watch", help="Show it again every two seconds."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Table of the runs below a folder, newest last.  Example: glottis runs --watch"""
    while True:
        rows = [_row(path.parent) for path in sorted(folder.glob("**/run.json"))]
        rows.sort(key=lambda row: row["started"])
        if as_json:
            print_json(rows)
        elif not rows:
            typer.echo(f"no runs below {folder}; 'glottis train RECIPE' makes one")
        else:
            if watch:
                typer.echo("\x1b[2J\x1b[H", nl=False)  # clear the screen
            headers = ["folder", "run", "task", "model", "step", "loss", "dev EER %", "state"]
            keys = ["folder", "run_id", "task", "model", "step", "loss", "dev_eer", "state"]
            print_table(headers, [[row[key] for key in keys] for row in rows])
        if not watch:
            return
        time.sleep(2.0)


def _row(folder: Path) -> dict[str, Any]:
    from glottis.report.history import read_metrics

    run = json.loads((folder / "run.json").read_text())
    metrics = read_metrics(folder)
    last: dict[str, Any] = {}
    for record in metrics:
        last |= record
    eers = [r["dev/eer"] for r in metrics if r.get("dev/eer") is not None]
    log = folder / "train.log"
    age = time.time() - log.stat().st_mtime if log.exists() else float("inf")
    finished = (folder / "finished.json").exists()
    return {
        "folder": str(folder),
        "run_id": run["run_id"],
        "task": run["recipe"]["task"],
        "model": run["recipe"]["model"]["name"],
        "started": run["started"],
        "step": last.get("step", 0),
        "loss": last.get("train/loss"),
        "dev_eer": round(100 * min(eers), 2) if eers else None,
        "state": "finished" if finished else ("running" if age < 120 else "stopped"),
    }
