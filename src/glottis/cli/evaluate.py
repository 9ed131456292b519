"""``glottis evaluate CHECKPOINT --trials FILE | --protocol FILE``."""

from __future__ import annotations

from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, print_json, print_table

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def evaluate(
    checkpoint: Path = typer.Argument(..., help="Run, checkpoint or imported model."),
    trials: Path = typer.Option(None, help="Trial list (speaker verification)."),
    protocol: Path = typer.Option(None, help="Protocol (spoofing)."),
    root: Path = typer.Option(None, help="Folder of the audio; default: that of the run."),
    manifest: Path = typer.Option(None, help="Manifest with speakers and conditions."),
    store: Path = typer.Option(None, help="Packed store to read instead of files."),
    pattern: str = typer.Option(
        "{utterance}.flac", help="Without a manifest: path of a protocol's utterance below --root."
    ),
    by: list[str] = typer.Option(
        ["source", "channel"], "--by", help="Manifest columns to make tables by."
    ),
    scores: Path = typer.Option(None, "--scores", help="Write the scores to this file."),
    out: Path = typer.Option(None, "--out", help="Folder for result.json, result.md, det.png."),
    device: str = typer.Option("cpu", help="cpu, cuda, cuda:1 ..."),
    as_json: bool = JSON_OPTION,
) -> None:
    """EER and detection costs with 95 % intervals, pooled and by condition.

    Example: glottis evaluate runs/first --trials trials.txt --root ~/voices
    """
    from glottis.report.evaluation import write_report
    from glottis.score.checkpoint import evaluate_checkpoint, open_clips

    clips = open_clips(checkpoint, root, manifest, store, pattern)
    done = evaluate_checkpoint(
        checkpoint, clips, trials=trials, protocol=protocol, conditions=by, device=device
    )
    if scores is not None:
        done.write_scores(scores)
    if out is not None:
        write_report(out, done)
    if as_json:
        print_json(done.result.to_dict())
        return
    result = done.result
    typer.echo(f"{result.data['file']} ({result.data['role']})")
    typer.echo(", ".join(f"{number:,} {name}" for name, number in result.n.items()))
    print_table(["metric", "value [95 %]"], result.rows())
    for condition in result.conditions():
        typer.echo("")
        print_table(*result.table(condition))
    typer.echo("")
    for method in dict.fromkeys(m.method for m in result.metrics.values()):
        typer.echo(f"interval: {method}")
    for note in result.notes:
        typer.echo(f"note: {note}")
