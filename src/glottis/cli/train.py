"""``glottis train RECIPE``."""

from __future__ import annotations

from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, print_json

app = typer.Typer(rich_markup_mode=None)


@app.command()
def train(
    recipe: Path = typer.Argument(..., help="YAML recipe; see 'glottis recipes'."),
    overrides: list[str] = typer.Argument(None, help="key=value, checked like the recipe."),
    out: Path = typer.Option(None, "--out", help="Run folder; default runs/RECIPE."),
    resume: bool = typer.Option(False, "--resume", help="Continue the run in the folder."),
    checkpoint: Path = typer.Option(
        None, "--from", help="With --resume: continue from this checkpoint, not the newest."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Train a recipe.  Kill it at any moment: --resume continues bit for bit.

    Example: glottis train recipes/speech_resnetse34l.yaml optim.rate=5e-4 --out runs/first
    """
    from glottis.train import load_recipe, train_recipe

    folder = out if out is not None else Path("runs") / recipe.stem
    loaded = load_recipe(recipe, overrides or [])
    result = train_recipe(loaded, folder, resume=resume, checkpoint=checkpoint)
    if as_json:
        print_json(result)
    else:
        typer.echo(f"finished: {folder}")
        for key, value in result.items():
            typer.echo(f"  {key}: {value}")
