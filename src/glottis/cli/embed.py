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
    dim: str = typer.Option(
        None,
        "--dim",
        metavar="N,N|all",
        help="Sizes of the embedding, one file each if several (emb.64.parquet).",
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Audio files into embeddings of unit length.

    Example: glottis embed runs/demo/speaker a.wav b.wav --out emb.parquet
    """
    from glottis.score.answer import embed_files

    require_writable(out)
    once = list(dict.fromkeys(files))
    made = embed_files(checkpoint, once, dim, Bar("embedding", "files"))
    written = []
    for embeddings in made:
        rows, size = embeddings.matrix.shape
        path = out if len(made) == 1 else out.with_name(f"{out.stem}.{size}{out.suffix}")
        embeddings.save(path)
        written.append({"out": str(path), "files": rows, "dim": size})
    if as_json:
        print_json(written[0] if len(written) == 1 else written)
        return
    for one in written:
        typer.echo(f"{one['files']} embeddings of {one['dim']} values -> {one['out']}")
