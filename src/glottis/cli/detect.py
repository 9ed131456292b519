"""``glottis detect CHECKPOINT FILES...``."""

from __future__ import annotations

from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, Bar, print_json, print_table

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def detect(
    checkpoint: Path = typer.Argument(
        ..., metavar="CHECKPOINT", help="Run, checkpoint or imported model."
    ),
    files: list[Path] = typer.Argument(..., metavar="FILES", help="Audio files."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Is it a live human or a deepfake?  Higher scores are more human.

    Example: glottis detect runs/demo/spoof clip.wav
    """
    from glottis.score.answer import detect_files

    answers = detect_files(checkpoint, files, Bar("judging", "files"))
    if as_json:
        print_json([answer.to_dict() for answer in answers])
        return
    headers = ["file", "score", "decision", "segments"]
    rows = [[a.file, f"{a.score:.3f}", a.decision, a.segments] for a in answers]
    if answers[0].log_likelihood_ratio is not None:
        headers.append("log-likelihood ratio")
        for row, answer in zip(rows, answers, strict=True):
            row.append(f"{answer.log_likelihood_ratio:.2f}")
    print_table(headers, rows)
    if answers[0].threshold is not None:
        typer.echo(f"bonafide from a score of {answers[0].threshold:.3f} on")
    typer.echo(answers[0].meaning)
    for answer in answers:
        for note in answer.notes:
            typer.echo(f"note: {note}")
