"""``glottis models | losses | corpora | recipes [NAME]``: what there is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from glottis.cli._output import JSON_OPTION, print_json, print_table

app = typer.Typer(rich_markup_mode=None, add_completion=False)

NAME = typer.Argument(None, metavar="NAME", help="Show the options of this one.")


def _show(registry: Any, name: str | None, as_json: bool, facts: tuple[str, ...] = ()) -> None:
    """The table of a registry, or the options of one entry.  facts: attributes worth a column."""
    if name is None:
        rows = [
            {
                "name": entry.name,
                **{fact: getattr(entry.target, fact) for fact in facts},
                "summary": _about(entry) if "input" in facts else entry.summary,
            }
            for entry in registry
        ]
        if as_json:
            print_json(rows)
        else:
            print_table(["name", *facts, "summary"], [list(row.values()) for row in rows])
        return
    import inspect

    from glottis.config import options

    entry = registry[name]
    table = options(entry.config)
    if as_json:
        print_json({"name": entry.name, "summary": entry.summary, "options": table})
        return
    typer.echo(f"{entry.name}: {inspect.getdoc(entry.target)}\n")
    print_table(
        ["option", "type", "default", "meaning"],
        [(o["key"], o["type"], o["default"], o["meaning"]) for o in table],
    )


def _about(entry: Any) -> str:
    """What a network is: the first line of its file (its class speaks of shapes)."""
    text = sys.modules[entry.module].__doc__ or entry.summary
    return str(text).splitlines()[0]


@app.command()
def models(name: str = NAME, as_json: bool = JSON_OPTION) -> None:
    """Networks that can be trained.

    Example: glottis models aasist
    """
    from glottis.models import MODELS

    _show(MODELS, name, as_json, ("task", "input"))


@app.command()
def losses(name: str = NAME, as_json: bool = JSON_OPTION) -> None:
    """Loss heads.

    Example: glottis losses aam_softmax
    """
    from glottis.losses import LOSSES

    _show(LOSSES, name, as_json, ("task", "batch"))


@app.command()
def corpora(name: str = NAME, as_json: bool = JSON_OPTION) -> None:
    """Corpora that 'glottis prepare' reads.

    Example: glottis corpora asvspoof2019
    """
    from glottis.data.corpora import CORPORA

    _show(CORPORA, name, as_json)


@app.command()
def recipes(as_json: bool = JSON_OPTION) -> None:
    """Recipes that come with Glottis.

    Example: glottis recipes
    """
    from glottis.configfile import read_tree

    rows = []
    for path in sorted(recipe_folder().glob("*.yaml")):
        tree = read_tree(path)
        rows.append((str(path), tree.get("task", ""), tree.get("description", "")))
    if as_json:
        print_json([{"recipe": r, "task": t, "description": d} for r, t, d in rows])
    else:
        print_table(["recipe", "task", "description"], rows)


def recipe_folder() -> Path:
    """``recipes/`` of the checkout, else inside the installed package; relative if it is here."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] / "recipes"
    folder = checkout if (checkout / "demo_speaker.yaml").is_file() else package / "recipes"
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
