"""``glottis evaluate CHECKPOINT... --trials FILE | --protocol FILE``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from glottis.cli._output import (
    JSON_OPTION,
    Bar,
    print_json,
    print_result,
    require_folder,
    require_writable,
)
from glottis.errors import ConfigError

COMBINATIONS = ("concat", "mean")

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def evaluate(
    checkpoint: list[Path] = typer.Argument(
        ...,
        metavar="CHECKPOINT",
        help="Run, checkpoint or imported model; several are evaluated as one.",
    ),
    trials: Path = typer.Option(None, metavar="FILE", help="Trial list (speaker verification)."),
    protocol: Path = typer.Option(None, metavar="FILE", help="Protocol (spoofing)."),
    root: Path = typer.Option(
        None,
        metavar="DIR",
        help="Folder of the audio; default: that of --manifest, else that of the run.",
    ),
    manifest: Path = typer.Option(
        None,
        metavar="FILE",
        help="Table with speakers and conditions; default: that of the run, if it fits the list.",
    ),
    store: Path = typer.Option(None, metavar="DIR", help="Packed store to read instead of files."),
    pattern: str = typer.Option(
        None,
        help="Path of an utterance below --root, where it is not that of the manifest; "
        "default without a manifest: '{utterance}.flac' of a protocol, the name itself of a trial.",
    ),
    by: list[str] = typer.Option(
        ["source", "channel"], "--by", metavar="COLUMN", help="Manifest column to make a table by."
    ),
    dim: str = typer.Option(
        None,
        "--dim",
        metavar="N,N|all",
        help="Sizes of a Matryoshka embedding; the result is that of the largest.",
    ),
    scores: Path = typer.Option(None, "--scores", metavar="FILE", help="Write the scores here."),
    out: Path = typer.Option(
        None, "--out", metavar="DIR", help="Folder for result.json, result.md, det.png, scores.png."
    ),
    combine: str = typer.Option(
        "concat",
        help="Embeddings of several speaker models: concat, or mean (models of one space).",
    ),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1 ..."),
    as_json: bool = JSON_OPTION,
) -> None:
    """EER and detection costs with 95 % intervals, pooled and by condition.

    Example: glottis evaluate runs/first --trials trials.txt --root ~/voices
    """
    from glottis.report.evaluation import write_report
    from glottis.report.history import events_of
    from glottis.score.checkpoint import evaluate_checkpoint
    from glottis.score.clips import open_clips
    from glottis.train.runtime import pick_device

    if scores is not None:
        require_writable(scores)
    if out is not None:
        require_folder(out)
    chosen = str(pick_device(device))
    clips = open_clips(checkpoint[0], root, manifest, store, pattern)
    done = evaluate_checkpoint(
        checkpoint,
        clips,
        trials=trials,
        protocol=protocol,
        combine=_combination(combine),
        dims=dim,
        conditions=by,
        device=chosen,
        progress=Bar("embedding"),
    )
    notes = [note for path in checkpoint for note in events_of(path)]
    done = replace(done, result=replace(done.result, notes=(*done.result.notes, *notes)))
    if scores is not None:
        done.write_scores(scores)
    if out is not None:
        write_report(out, done)
    if as_json:
        print_json(done.result.to_dict())
        return
    data = done.result.data
    typer.echo(f"{data['file']} ({data['role']})")
    print_result(done.result)


def _combination(word: str) -> Any:
    if word not in COMBINATIONS:
        known = ", ".join(COMBINATIONS)
        raise ConfigError(f"embeddings cannot be combined by '{word}'", fix=f"known: {known}")
    return word
