"""``glottis runs [DIR] [--watch]``."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import typer

from glottis.cli._output import JSON_OPTION, print_json, print_table

app = typer.Typer(rich_markup_mode=None, add_completion=False)

DEFAULT = Path("runs")
QUIET_SECONDS = 120.0  # a log without a line for so long: the run was killed
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \S+ (\w+) \S+ (.*)$", re.MULTILINE)


@app.command()
def runs(
    folder: Path = typer.Argument(DEFAULT, metavar="DIR", help="Folder of run folders."),
    watch: bool = typer.Option(False, "--watch", help="Show it again every two seconds."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Table of the runs below a folder, newest last.

    Example: glottis runs --watch
    """
    from glottis.errors import ConfigError

    if not folder.is_dir() and folder != DEFAULT:
        raise ConfigError(f"there is no folder {folder}", fix="give the folder of the runs")
    while True:
        rows = [row for path in folder.glob("**/run.json") if (row := _row(path)) is not None]
        rows.sort(key=lambda row: (row["started"], row["folder"]))
        if watch:
            typer.echo("\x1b[2J\x1b[H", nl=False)  # clear the screen
        _show(rows, folder, as_json)
        if not watch:
            return
        time.sleep(2.0)


def _show(rows: list[dict[str, Any]], folder: Path, as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    if not rows:
        typer.echo(f"no runs below {folder}; 'glottis train RECIPE' makes one")
        return
    print_table(
        ["folder", "run", "started", "task", "model", "step", "loss", "best dev EER %", "state"],
        [
            [
                *(row["folder"], row["run_id"], row["started"][:16].replace("T", " ")),
                *(row["task"], row["model"], row["step"]),
                None if row["loss"] is None else f"{row['loss']:.4f}",
                None if row["dev_eer"] is None else f"{100 * row['dev_eer']:.2f}",
                row["state"],
            ]
            for row in rows
        ],
    )


def _row(path: Path) -> dict[str, Any] | None:
    """One run; None (and a word on stderr) if the file is not ours or not whole."""
    from glottis.report.history import read_metrics

    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        task, model = run["recipe"]["task"], run["recipe"]["model"]["name"]
        identity, started = str(run["run_id"]), str(run["started"])
    except (ValueError, TypeError, KeyError):
        typer.echo(f"{path} does not describe a run", err=True)
        return None
    last: dict[str, Any] = {}
    metrics = read_metrics(path.parent)
    for record in metrics:
        last |= record
    eers = [record["dev/eer"] for record in metrics if record.get("dev/eer") is not None]
    return {
        "folder": str(path.parent),
        "run_id": identity,
        "task": task,
        "model": model,
        "started": started,
        "step": last.get("step", 0),
        "loss": last.get("train/loss"),
        "dev_eer": min(eers, default=None),
        "state": _state(path.parent),
    }


def _state(folder: Path) -> str:
    """finished; failed (with an error); stopped (interrupted, or silent: killed); else running."""
    if (folder / "finished.json").exists():
        return "finished"
    log = folder / "train.log"
    if not log.exists():
        return "stopped"
    lines = LOG_LINE.findall(log.read_text(encoding="utf-8", errors="replace"))
    level, text = lines[-1] if lines else ("", "")
    if text.startswith("stopped: "):
        return "failed" if level == "ERROR" else "stopped"
    return "running" if time.time() - log.stat().st_mtime < QUIET_SECONDS else "stopped"
