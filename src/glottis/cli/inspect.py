"""``glottis inspect CHECKPOINT``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from glottis.cli._output import JSON_OPTION, print_json, print_table

app = typer.Typer(rich_markup_mode=None, add_completion=False)

LEARNED_SHOWN = 16  # tensors of up to this many values are printed value by value


@app.command()
def inspect(
    checkpoint: Path = typer.Argument(
        ..., metavar="CHECKPOINT", help="Run, checkpoint or imported model."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Parameters, layer norms and learned weights of a model, and its card.

    Example: glottis inspect runs/first/checkpoints/best
    """
    from glottis.models import load_model
    from glottis.models import read_card as card_of
    from glottis.score import resolve_checkpoint

    folder = resolve_checkpoint(checkpoint)
    card, model = card_of(folder), load_model(folder)
    layers = [_layer(name, tensor) for name, tensor in model.named_parameters()]
    learned = {
        name: tensor.detach().flatten().tolist()
        for name, tensor in model.named_parameters()
        if tensor.numel() <= LEARNED_SHOWN
    }
    if as_json:
        print_json({"card": card, "layers": layers, "learned": learned})
        return
    typer.echo(
        f"{folder}: {card['name']} ({card['task']}), {card['parameters']:,} parameters, "
        f"{card['embedding_size']} values per embedding, {card['sample_rate']} Hz"
    )
    for title, section in (
        ("options", card["config"]),
        ("front end", card["features"] or {}),
        ("card", _card(card)),
    ):
        _section(title, section)
    typer.echo("\nlayers")
    print_table(
        ["tensor", "shape", "values", "norm", "mean", "std"],
        [
            [row["name"], row["shape"], f"{row['values']:,}"]
            + [f"{row[key]:.4f}" for key in ("norm", "mean", "std")]
            for row in layers
        ],
    )
    if learned:
        typer.echo(f"\nlearned weights (tensors of at most {LEARNED_SHOWN} values)")
        print_table(
            ["tensor", "values"],
            [(name, " ".join(f"{v:.4g}" for v in values)) for name, values in learned.items()],
        )


def _card(card: Mapping[str, Any]) -> dict[str, Any]:
    """What the model says about itself, its tables of training data aside."""
    extra = dict(card["extra"])
    data = extra.get("data") or {}
    if "train" in data:
        extra["data"] = {**data, "train": {**data["train"], "by": "see --json"}}
    return {"glottis": card["glottis"], **extra}


def _section(title: str, tree: Mapping[str, Any]) -> None:
    rows = list(_flat(tree))
    width = max((len(key) for key, _ in rows), default=0)
    if rows:
        typer.echo(f"\n{title}")
    for key, value in rows:
        typer.echo(f"  {key.ljust(width)}  {value}")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(``data.train.clips``, ``24``) for every value of a tree; what is empty is left out."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value not in (None, "", [], ()):
            yield f"{prefix}{key}", str(value)


def _layer(name: str, tensor: Any) -> dict[str, Any]:
    values = tensor.detach().float()
    return {
        "name": name,
        "shape": "x".join(str(size) for size in tensor.shape) or "scalar",
        "values": tensor.numel(),
        "norm": values.norm().item(),
        "mean": values.mean().item(),
        "std": values.std(correction=0).item(),
    }
