"""``glottis inspect CHECKPOINT``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from glottis.cli._output import JSON_OPTION, print_json, print_table

app = typer.Typer(rich_markup_mode=None, add_completion=False)

SCALARS_SHOWN = 16  # tensors up to this many values are shown as learned weights


@app.command()
def inspect(
    checkpoint: Path = typer.Argument(..., help="Run, checkpoint folder or imported model."),
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
        if tensor.numel() <= SCALARS_SHOWN
    }
    if as_json:
        print_json({"card": card, "layers": layers, "learned": learned})
        return
    typer.echo(f"{card['name']} ({card['task']}), {card['parameters']:,} parameters, ")
    for key in ("config", "features", "sample_rate", "embedding_size", "glottis"):
        typer.echo(f"  {key}: {card[key]}")
    for key, value in card["extra"].items():
        typer.echo(f"  {key}: {value}")
    print_table(
        ["tensor", "shape", "values", "norm", "mean", "std"],
        [[row[k] for k in ("name", "shape", "values", "norm", "mean", "std")] for row in layers],
    )


def _layer(name: str, tensor: Any) -> dict[str, Any]:
    values = tensor.detach().float()
    return {
        "name": name,
        "shape": "x".join(str(size) for size in tensor.shape) or "scalar",
        "values": tensor.numel(),
        "norm": round(values.norm().item(), 4),
        "mean": round(values.mean().item(), 5),
        "std": round(values.std(correction=0).item(), 5),
    }
