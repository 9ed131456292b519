"""``glottis verify CHECKPOINT A B``."""

from __future__ import annotations

from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, print_json

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def verify(
    checkpoint: Path = typer.Argument(
        ..., metavar="CHECKPOINT", help="Run, checkpoint or imported model."
    ),
    first: Path = typer.Argument(..., metavar="A", help="An audio file."),
    second: Path = typer.Argument(..., metavar="B", help="Another audio file."),
    dim: str = typer.Option(
        None, "--dim", metavar="N,N|all", help="Sizes of the embedding; default: the whole."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Do two files hold the same voice?

    Example: glottis verify runs/demo/speaker a.wav b.m4a
    """
    from glottis.score.answer import verify_files

    answer = verify_files(checkpoint, first, second, dim)
    if as_json:
        print_json(answer.to_dict())
        return
    typer.echo(answer.text())
