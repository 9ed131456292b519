"""``glottis profile RECIPE --out DIR``."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, print_json, print_table, require_folder

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def profile(
    recipe: Path = typer.Argument(..., metavar="RECIPE", help="YAML recipe."),
    overrides: list[str] = typer.Argument(
        None, metavar="KEY=VALUE", help="Changes of the recipe, checked like it."
    ),
    out: Path = typer.Option(..., "--out", metavar="DIR", help="Folder for the trace."),
    wait: int = typer.Option(1, min=0, help="Steps before anything is recorded."),
    warmup: int = typer.Option(1, min=1, help="Steps recorded and thrown away."),
    active: int = typer.Option(3, min=1, help="Steps in the trace."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Trace a few training steps: operators with shapes and stacks, and the 20 heaviest.

    The trace opens in TensorBoard or in a browser's trace viewer.

    Example: glottis profile recipes/speech_resnetse34l.yaml --out runs/profile
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its lines are for its authors
    from glottis.train import load_recipe
    from glottis.train.profiling import profile_recipe

    require_folder(out)
    result = profile_recipe(
        load_recipe(recipe, overrides or []), out, wait=wait, warmup=warmup, active=active
    )
    if as_json:
        print_json(result.to_dict())
        return
    print_table(
        ["operator", "calls", "self ms", "share %", "input shapes"],
        [
            (o.name, o.calls, f"{o.self_ms:.2f}", f"{o.share:.1f}", _shortened(o.shapes))
            for o in result.operators
        ],
    )
    typer.echo(
        f"{result.step_ms:.1f} ms per step, waiting for data {result.data_share:.0%} of the time"
    )
    typer.echo(f"trace: {result.trace}")


def _shortened(shapes: str) -> str:
    """The shapes that are there (empty ones are scalars), on one line."""
    known = shapes.replace("[], ", "").replace(", []", "")
    return known if len(known) <= 60 else f"{known[:57]}..."
