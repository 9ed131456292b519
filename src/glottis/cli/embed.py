"""``glottis embed CHECKPOINT FILES... --out emb.parquet``."""

from __future__ import annotations

from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, print_json

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def embed(
    checkpoint: Path = typer.Argument(..., help="Run, checkpoint or imported model."),
    files: list[Path] = typer.Argument(..., help="Audio files."),
    out: Path = typer.Option(..., "--out", help="Parquet file: id, embedding (unit length)."),
    dim: int = typer.Option(None, "--dim", help="Only the first values, then unit length."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Audio files into embeddings of unit length.

    Example: glottis embed runs/demo/speaker a.wav b.wav --out emb.parquet
    """
    from glottis.score.answer import embed_files

    embeddings = embed_files(checkpoint, files, dim)
    embeddings.save(out)
    rows, size = embeddings.matrix.shape
    if as_json:
        print_json({"out": str(out), "files": rows, "dim": size})
    else:
        typer.echo(f"{rows} embeddings of {size} values -> {out}")
