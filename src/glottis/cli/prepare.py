"""``glottis prepare CORPUS SRC DST``."""

from __future__ import annotations

from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, print_json

app = typer.Typer(rich_markup_mode=None)


@app.command()
def prepare(
    corpus: str = typer.Argument(..., help="Name of the corpus; see 'glottis corpora'."),
    source: Path = typer.Argument(..., help="Folder of the corpus."),
    destination: Path = typer.Argument(..., help="Folder for manifest.parquet and the lists."),
    options: list[str] = typer.Argument(None, help="key=value options of the corpus."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Read a corpus in its official layout into a manifest.

    Example: glottis prepare folder ~/voices data/voices
    """
    from glottis.config import build, named_type
    from glottis.configfile import apply_overrides
    from glottis.data import CORPORA
    from glottis.errors import DataError

    entry = CORPORA[corpus]
    if not source.is_dir():
        raise DataError(f"{source} is not a folder", fix="give the folder of the corpus")
    tree = apply_overrides({"name": corpus}, options or [])
    config = build(named_type(entry.name, entry.config), tree, f"corpus {corpus}")
    prepared = entry.target(source, config)
    destination.mkdir(parents=True, exist_ok=True)
    path = destination / "manifest.parquet"
    prepared.manifest.write(path)
    result = {
        "manifest": str(path),
        "root": str(source),
        "summary": prepared.manifest.summary(),
        "counts": prepared.report.to_dict(),
        "trials": {name: str(file) for name, file in prepared.trials.items()},
    }
    if as_json:
        print_json(result)
        return
    typer.echo(f"{len(prepared.manifest)} clips -> {path}")
    typer.echo(prepared.report.text())
    for name, file in prepared.trials.items():
        typer.echo(f"official list {name}: {file}")
    typer.echo(f"next: glottis pack {path} {destination / 'store'} --root {source}")
