"""``glottis pack MANIFEST DST``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from glottis.cli._output import JSON_OPTION, Bar, duration_text, print_json, size_text

if TYPE_CHECKING:
    from glottis.audio import PackReport

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def pack(
    manifest: Path = typer.Argument(..., metavar="MANIFEST", help="CSV or Parquet table."),
    destination: Path = typer.Argument(..., metavar="DST", help="Folder for the store."),
    root: Path = typer.Option(
        None, metavar="DIR", help="Folder of the audio; default: the manifest's folder."
    ),
    codec: str = typer.Option("pcm16", help="pcm16 (fast) or flac (about 60 % of the disk)."),
    sample_rate: int = typer.Option(16000, min=8000, max=48000, help="Rate of the store in Hz."),
    workers: int = typer.Option(None, min=0, help="Processes; default: one per core."),
    budget: int = typer.Option(
        None, min=0, help="Broken files to leave out before giving up; default 1 % (at least 10)."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Decode a corpus once, in parallel; kill it and call it again to go on.

    \b
    Example: glottis pack data/voices/manifest.parquet data/voices/store --root ~/voices
    """
    from glottis.audio import estimate
    from glottis.audio import pack as pack_store
    from glottis.data import Manifest
    from glottis.data.source import pack_items
    from glottis.errors import ConfigError

    if codec != "pcm16" and codec != "flac":
        raise ConfigError(f"there is no codec '{codec}'", fix="--codec pcm16 or --codec flac")
    kind: Any = codec
    table = Manifest.read(manifest)
    folder = root if root is not None else manifest.parent
    table.check(folder).raise_if_bad(folder)
    items = pack_items(table, folder)
    size = estimate(items, kind, sample_rate, dst=destination)
    if not as_json:
        typer.echo(
            f"{len(items):,} clips, about {duration_text(size.seconds)} -> {size_text(size.bytes)} "
            f"({size_text(size.free_bytes)} free)"
        )
    bar = Bar("packing")
    report = pack_store(
        items,
        destination,
        sample_rate=sample_rate,
        codec=kind,
        workers=workers,
        budget=budget,
        progress=lambda state: bar(state.done, state.total, state.clips_per_second),
    )
    if as_json:
        print_json(_plain(report))
        return
    _tell(report)
    places = {"data.root": folder, "data.manifest": manifest, "data.store": destination}
    words = [f"{key}={path}" for key, path in places.items()]
    typer.echo(f"next: glottis train RECIPE {shlex.join(words)}")


def _tell(report: PackReport) -> None:
    if report.already_finished:
        typer.echo(f"{report.path} was complete already")
    else:
        resumed = f", {report.num_resumed} of them before" if report.num_resumed else ""
        typer.echo(
            f"{report.num_utterances:,} clips{resumed}, {duration_text(report.duration_s)}, "
            f"{size_text(report.num_bytes)} in {report.wall_s:.1f} s -> {report.path}"
        )
    for code, number in report.warnings.items():
        typer.echo(f"  {number} clips: {code} (see warnings.jsonl)")
    if report.quarantined:
        typer.echo(f"  {len(report.quarantined)} broken files are left out (quarantine.jsonl)")


def _plain(report: PackReport) -> dict[str, Any]:
    return {
        "path": str(report.path),
        "clips": report.num_utterances,
        "seconds": report.duration_s,
        "bytes": report.num_bytes,
        "already_finished": report.already_finished,
        "resumed": report.num_resumed,
        "warnings": dict(report.warnings),
        "quarantined": [vars(record) for record in report.quarantined],
        "wall_seconds": report.wall_s,
    }
