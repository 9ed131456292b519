"""``glottis identify CHECKPOINT FILES... --store emb.parquet``."""

from __future__ import annotations

from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, Bar, print_json, print_table

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def identify(
    checkpoint: Path = typer.Argument(
        ..., metavar="CHECKPOINT", help="Run, checkpoint or imported model."
    ),
    files: list[Path] = typer.Argument(..., metavar="FILES", help="Audio files."),
    store: Path = typer.Option(
        ..., "--store", metavar="FILE", help="Voice prints: a file that glottis embed wrote."
    ),
    dim: str = typer.Option(
        None, "--dim", metavar="N,N|all", help="Sizes of the embedding; default: the whole."
    ),
    top: int = typer.Option(5, "--top", min=1, help="Matches to show."),
    shortlist: int = typer.Option(
        None,
        "--shortlist",
        min=1,
        metavar="N",
        help="Compare only the N best of the smallest size with all values; default: all.",
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """The nearest voice prints of every file.

    Example: glottis identify runs/mrl who.wav --store voices.parquet --shortlist 200
    """
    from glottis.score.identify import identify_files

    found = identify_files(
        *(checkpoint, list(dict.fromkeys(files)), store),
        dims=dim,
        top=top,
        shortlist=shortlist,
        progress=Bar("embedding", "files"),
    )
    if as_json:
        print_json([one.to_dict() for one in found])
        return
    print_table(
        ["file", "dim", "voice print", "score", "decision"],
        [
            [one.file, one.dim, match.utterance, f"{match.score:.4f}", match.decision]
            for one in found
            for match in one.matches
        ],
    )
    for size, threshold in dict.fromkeys((one.dim, one.threshold) for one in found):
        if threshold is not None:
            typer.echo(f"same from a score of {threshold:.4f} with {size} values (set for pairs)")
