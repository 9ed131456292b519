"""``glottis pack MANIFEST DST``."""

from __future__ import annotations

from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, Bar, print_json

app = typer.Typer(rich_markup_mode=None)


@app.command()
def pack(
    manifest: Path = typer.Argument(..., help="CSV or Parquet manifest."),
    destination: Path = typer.Argument(..., help="Folder for the store."),
    root: Path = typer.Option(None, help="Folder of the audio; default: the manifest's folder."),
    codec: str = typer.Option("pcm16", help="pcm16 (fast) or flac (about 60 % of the disk)."),
    sample_rate: int = typer.Option(16000, help="Rate of the store in Hz."),
    workers: int = typer.Option(None, help="Processes; default: one per core."),
    budget: int = typer.Option(100, help="Broken files to leave out before giving up."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Decode a corpus once, in parallel; kill it and call it again to go on.

    Example: glottis pack data/voices/manifest.parquet data/voices/store --root ~/voices
    """
    import os

    from glottis.audio import PackItem, estimate
    from glottis.audio import pack as pack_store
    from glottis.data import Manifest
    from glottis.errors import ConfigError

    if codec not in ("pcm16", "flac"):
        raise ConfigError(f"there is no codec '{codec}'", fix="--codec pcm16 or --codec flac")
    table = Manifest.read(manifest)
    folder = root if root is not None else manifest.parent
    table.check(folder).raise_if_bad(folder)
    pairs = zip(table.column("utterance"), table.column("path"), strict=True)
    items = [PackItem(str(u), folder / str(p)) for u, p in pairs]
    size = estimate(items, codec, sample_rate, destination)
    if not as_json:
        typer.echo(
            f"{len(items)} clips, about {size.seconds / 3600:.2f} h -> {size.bytes / 2**20:.0f} MB "
            f"({size.free_bytes / 2**20:.0f} MB free)"
        )
    report = pack_store(
        items,
        destination,
        sample_rate=sample_rate,
        codec=codec,
        workers=workers if workers is not None else (os.cpu_count() or 1),
        budget=budget,
        progress=Bar("packing"),
    )
    if as_json:
        print_json(report.to_dict())
    else:
        typer.echo(report.text())
