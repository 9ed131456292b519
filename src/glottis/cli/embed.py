"""``glottis embed CHECKPOINT FILES... --out emb.parquet``."""

from __future__ import annotations

from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, Bar, print_json, require_writable

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def embed(
    checkpoint: Path = typer.Argument(
        ..., metavar="CHECKPOINT", help="Run, checkpoint or imported model."
    ),
    files: list[Path] = typer.Argument(..., metavar="FILES", help="Audio files."),
    out: Path = typer.Option(
        ..., "--out", metavar="FILE", help="Parquet file: utterance, embedding (unit length)."
    ),
    dim: int = typer.Option(None, "--dim", help="Only the first values, unit length again."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Audio files into embeddings of unit length.

    Example: glottis embed runs/demo/speaker a.wav b.wav --out emb.parquet
    """
    from glottis.score.answer import embed_files

    require_writable(out)
    once = list(dict.fromkeys(files))
    embeddings = embed_files(checkpoint, once, dim, Bar("embedding", "files"))
    embeddings.save(out)
    rows, size = embeddings.matrix.shape
    if as_json:
        print_json({"out": str(out), "files": rows, "dim": size})
    else:
        typer.echo(f"{rows} embeddings of {size} values -> {out}")
