"""``glottis replay BUNDLE``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, print_json

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def replay(
    bundle: Path = typer.Argument(
        ..., metavar="BUNDLE", help="Folder nonfinite-NNNNNNNN of a run."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Run a step that was not finite once more and name the first bad number.

    Ends with 0 if the same place is found again, else with 1.

    Example: glottis replay runs/first/nonfinite-00000123
    """
    from glottis.train.bundle import replay as run_again

    found = run_again(bundle)
    if as_json:
        print_json(
            {
                "step": found.step,
                "then": asdict(found.before),
                "now": asdict(found.now),
                "reproduced": found.reproduced,
            }
        )
    else:
        typer.echo(f"step {found.step}, in the run: {found.before.text()}")
        typer.echo(f"step {found.step}, now: {found.now.text()}")
        typer.echo("the same place" if found.reproduced else "not the same place")
    if not found.reproduced:
        raise typer.Exit(1)
