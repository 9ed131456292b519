"""``glottis import-weights ARCH FILE DST``."""

from __future__ import annotations

from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, print_json, require_folder
from glottis.errors import ConfigError

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def import_weights(
    arch: str = typer.Argument(..., metavar="ARCH", help="Architecture; see 'glottis models'."),
    file: Path = typer.Argument(
        ..., metavar="FILE", help="Official weights: .pth, .pt or .safetensors."
    ),
    destination: Path = typer.Argument(
        ..., metavar="DST", help="Folder for the model in our format."
    ),
    options: list[str] = typer.Argument(
        None, metavar="KEY=VALUE", help="Options of the architecture."
    ),
    kind: str | None = typer.Option(
        None, "--format", metavar="NAME", help="Where the file comes from, if names do not tell."
    ),
    dims: str | None = typer.Option(
        None,
        "--dims",
        metavar="N,N",
        help="Sizes of the embedding that the weights were trained for (Matryoshka).",
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Official weights into our format, every tensor accounted for.

    Example: glottis import-weights aasist AASIST.pth models/aasist
    """
    from glottis.configfile import apply_overrides
    from glottis.models import import_with_report, save_model
    from glottis.models.sizes import trained_sizes

    require_folder(destination)
    tree = apply_overrides({}, options or [])
    reserved = sorted({"arch", "file", "format"} & tree.keys())
    if reserved:
        raise ConfigError(
            f"{reserved[0]} is no option of an architecture",
            fix="KEY=VALUE are options of the network, and features.KEY=VALUE of its front end",
        )
    model, report = import_with_report(arch, file, format=kind, **tree)
    if dims is not None:
        model.dims = trained_sizes(dims, model.embedding_size)
    save_model(model, destination, {"imported_from": file.name})
    if as_json:
        about = {"model": str(destination), "parameters": model.num_parameters}
        print_json(about | report.to_dict())
    else:
        typer.echo(f"{report}\nsaved to {destination}")
