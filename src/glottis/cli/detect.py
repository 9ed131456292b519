"""``glottis detect CHECKPOINT FILES...``."""

from __future__ import annotations

from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, print_json, print_table

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def detect(
    checkpoint: Path = typer.Argument(..., help="Run, checkpoint or imported model."),
    files: list[Path] = typer.Argument(..., help="Audio files."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Is it a live human or a deepfake?  Higher scores are more human.

    Example: glottis detect runs/demo/spoof clip.wav
    """
    from glottis.score.answer import detect_files

    answers = detect_files(checkpoint, files)
    if as_json:
        print_json([answer.to_dict() for answer in answers])
        return
    print_table(
        ["file", "score", "threshold", "decision", "segments", "notes"],
        [
            (a.file, round(a.score, 3), a.threshold, a.decision, a.segments, "; ".join(a.notes))
            for a in answers
        ],
    )
    typer.echo(answers[0].meaning)
