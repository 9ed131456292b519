"""``glottis models | losses | corpora | recipes [NAME]``: what there is."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import typer

from glottis.cli._output import JSON_OPTION, print_json, print_table
from glottis.errors import ConfigError

app = typer.Typer(rich_markup_mode=None, add_completion=False)

NAME = typer.Argument(None, metavar="NAME", help="Show the options of this one.")


def _show(registry: Any, name: str | None, as_json: bool, facts: tuple[str, ...] = ()) -> None:
    """The table of a registry, or the options of one entry.  facts: attributes worth a column."""
    if name is None:
        rows = [
            {
                "name": entry.name,
                **{fact: getattr(entry.target, fact) for fact in facts},
                "summary": entry.summary,
            }
            for entry in registry
        ]
        if as_json:
            print_json(rows)
        else:
            print_table(["name", *facts, "summary"], [list(row.values()) for row in rows])
        return
    from glottis.config import options

    entry = registry[name]
    if as_json:
        table = options(entry.config)
        print_json({"name": entry.name, "summary": entry.summary, "options": table})
        return
    typer.echo(f"{entry.name}: {inspect.getdoc(entry.target)}\n")
    _print_options(entry.config)


def _print_options(config: Any) -> None:
    from glottis.config import options

    print_table(
        ["option", "type", "default", "meaning"],
        [(o["key"], o["type"], o["default"], o["meaning"]) for o in options(config)],
    )


@app.command()
def models(
    name: str = NAME,
    task: str = typer.Option(None, "--task", help="Only speaker or only spoof models."),
    init: bool = typer.Option(False, "--init", help="How loud each layer of NAME is at step 0."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Networks that can be trained: size, cost, source, and whether they are the published ones.

    GFLOP per second of audio: multiply-adds count twice, front end included, eval mode.
    Parity: golden = equal to reference vectors of the original; published count = as many
    parameters as published; ours = nothing published to compare with.

    Example: glottis models aasist
    """
    if task is not None and task not in ("speaker", "spoof"):
        raise ConfigError(f"--task {task}", fix="--task speaker or --task spoof")
    if name is None:
        if init:
            raise ConfigError("--init needs the NAME of a model", fix="glottis models NAME --init")
        _list_models(task, as_json)
    elif init:
        _show_initial(name, as_json)
    else:
        _show_model(name, as_json)


def _list_models(task: str | None, as_json: bool) -> None:
    from glottis.models import MODELS
    from glottis.models.facts import facts

    rows = [facts(entry.name).row() for entry in MODELS if task in (None, entry.target.task)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["name", "task", "parameters", "trainable", "GFLOP per s", "front end", "parity", "from"],
        [
            (
                *(row["name"], row["task"], _count(row["parameters"]), _count(row["trainable"])),
                *(_significant(row["gflop_per_second"]), _front_end(row)),
                *(row["parity"], row["reference"]),
            )
            for row in rows
        ],
    )


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _significant(value: float | None) -> str | None:
    """Three digits that count."""
    return None if value is None else f"{float(f'{value:.3g}'):g}"


def _front_end(row: dict[str, Any]) -> str:
    return f"needs the extra {row['needs']}" if row["needs"] else str(row["front_end"])


def _show_model(name: str, as_json: bool) -> None:
    from glottis.config import options
    from glottis.models import MODELS
    from glottis.models.facts import facts

    entry = MODELS[name]
    row = {**facts(name).row(), "recipes": recipes_of(name)}
    if as_json:
        print_json({**row, "options": options(entry.config)})
        return
    typer.echo(f"{name}: {row['summary']}\n\n{inspect.getdoc(entry.target)}\n")
    lines = [("reference", row["reference"]), ("parity", f"{row['parity']}: {row['evidence']}")]
    if row["needs"]:
        lines.append(("size", _front_end(row)))
    else:
        lines += [
            ("parameters", f"{row['parameters']:,}, of which {row['trainable']:,} are trained"),
            (
                "cost",
                f"{_significant(row['gflop_per_second'])} GFLOP per second of audio, "
                f"{_significant(row['front_end_gflop_per_second'])} of it the front end",
            ),
            ("front end", row["front_end"]),
            ("embedding", f"{row['embedding_size']} values"),
            ("shortest clip", _shortest(row)),
        ]
    lines += [
        ("reads checkpoints", ", ".join(row["formats"]) or "of Glottis only"),
        ("recipes", ", ".join(row["recipes"]) or "none"),
    ]
    for title, text in lines:
        typer.echo(f"{title + ':':<19}{text}")
    typer.echo("")
    _print_options(entry.config)


def _shortest(row: dict[str, Any]) -> str:
    seconds = row["min_samples"] / row["sample_rate"]
    return f"{row['min_samples']:,} samples ({seconds:.3f} s at {row['sample_rate']:,} Hz)"


def _show_initial(name: str, as_json: bool) -> None:
    from dataclasses import asdict

    from glottis.models import create_model
    from glottis.models.scales import initial_scales

    scales = initial_scales(create_model(name, seed=0))
    if as_json:
        print_json([asdict(scale) for scale in scales])
        return
    typer.echo("Standard deviation of what each layer gives at step 0, on a speech-like signal.\n")
    print_table(
        ["layer", "kind", "deviation"],
        [(scale.layer, scale.kind, f"{scale.deviation:.3g}") for scale in scales],
    )


def recipes_of(name: str) -> list[str]:
    """Recipes that train the model ``name``."""
    return [recipe for recipe, model in _recipe_models() if model == name]


@cache
def _recipe_models() -> tuple[tuple[str, str], ...]:
    """Every recipe with the model that it trains."""
    from glottis.configfile import read_tree

    trees = [(path.name, read_tree(path)) for path in sorted(recipe_folder().glob("*.yaml"))]
    return tuple((recipe, (tree.get("model") or {}).get("name", "")) for recipe, tree in trees)


@app.command()
def losses(name: str = NAME, as_json: bool = JSON_OPTION) -> None:
    """Loss heads.

    Example: glottis losses aam_softmax
    """
    from glottis.losses import LOSSES

    _show(LOSSES, name, as_json, ("task", "batch", "input", "reference"))


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
