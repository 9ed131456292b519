"""``glottis demo``: from nothing to a trained, evaluated model of both kinds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer

from glottis.cli._output import JSON_OPTION, Bar, print_json, require_folder
from glottis.cli.listing import recipe_folder

app = typer.Typer(rich_markup_mode=None, add_completion=False)

QUICK = {  # a few steps
    "speaker": ["train.epochs=1", "evaluate.every_epochs=1", "batch.size=8"],
    "spoof": ["train.steps=4", "evaluate.every_steps=4", "batch.size=8"],
}


@app.command()
def demo(
    out: Path = typer.Option(
        Path("runs/demo"), "--out", metavar="DIR", help="Folder for everything."
    ),
    workers: int = typer.Option(
        None, min=0, help="Processes that make the corpus; default: all cores."
    ),
    seed: int = typer.Option(0, min=0, help="Of the corpus."),
    quick: bool = typer.Option(
        False, "--quick", help="A tiny corpus and a few steps: shows the way, not the numbers."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """No data needed: synthetic talkers -> pack -> train both tasks -> evaluate on unseen talkers.

    Example: glottis demo
    """
    require_folder(out)
    result = run_demo(out, workers=workers, seed=seed, quick=quick, quiet=as_json)
    if as_json:
        print_json(result)
        return
    typer.echo(f"\n{result['note']}")
    for task, found in result["results"].items():
        typer.echo(f"{task}: {found['text']}")
        for line in found["lines"]:
            typer.echo(f"  {line}")
    typer.echo(f"curves, DET and tables: {out}/*/report  ({result['seconds']:.0f} s in all)")
    typer.echo(f"next: glottis verify {out}/speaker A.wav B.wav; glottis train --help")


def run_demo(
    out: Path, *, workers: int | None, seed: int, quick: bool, quiet: bool
) -> dict[str, Any]:
    """Corpus, store, two trainings, three evaluations; returns what was measured."""
    import os

    from glottis.audio import pack
    from glottis.data import Manifest
    from glottis.data.source import pack_items
    from glottis.score.results import SYNTHETIC
    from glottis.synth import SynthConfig, generate, tiny_config

    began = time.monotonic()
    count = workers if workers is not None else (os.cpu_count() or 1)
    config = tiny_config(seed) if quick else SynthConfig(seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    _say(quiet, "1/4 talking: synthetic talkers, their sessions and their spoofs")
    corpus = generate(
        out / "corpus", config, workers=count, progress=None if quiet else Bar("  clips")
    )
    _say(quiet, "2/4 packing")
    pack(pack_items(Manifest.read(corpus.manifest), corpus.root), out / "store", workers=0)
    results = {}
    _say(quiet, "3/4 training and evaluating the speaker model")
    results["speaker"] = _system("speaker", out, corpus.trials["eval"], quick, quiet)
    _say(quiet, "4/4 training and evaluating the countermeasure")
    results["spoof"] = _system("spoof", out, corpus.protocols["eval"], quick, quiet)
    return {
        "synthetic": True,
        "note": SYNTHETIC,
        "seconds": round(time.monotonic() - began, 1),
        "results": results,
    }


def _system(task: str, out: Path, listed: Path, quick: bool, quiet: bool) -> dict[str, Any]:
    """Train (or find trained) one of the two, evaluate it, draw it."""
    from glottis.report.evaluation import write_report
    from glottis.report.figures import training_curves
    from glottis.report.history import read_metrics
    from glottis.score.checkpoint import evaluate_checkpoint
    from glottis.score.clips import open_clips
    from glottis.train import load_recipe, train_recipe

    corpus, run = out / "corpus", out / task
    selection = {"speaker": "trials=trials_dev.txt", "spoof": "protocol=cm.dev.txt"}[task]
    key, _, name = selection.partition("=")
    overrides = [
        f"data.root={corpus}",
        f"data.manifest={corpus / 'manifest.csv'}",
        f"data.store={out / 'store'}",
        f"evaluate.{key}={corpus / name}",
    ]
    if quick:
        overrides += QUICK[task]
    recipe = load_recipe(recipe_folder() / f"demo_{task}.yaml", overrides)
    trained = train_recipe(recipe, run, resume=True)
    clips = open_clips(run, corpus, corpus / "manifest.csv", out / "store")
    option = "trials" if task == "speaker" else "protocol"
    done = evaluate_checkpoint(run, clips, conditions=(), **{option: listed})  # type: ignore[arg-type]
    title = f"synthetic {task}, unseen talkers"
    write_report(run / "report", done, title=title)
    training_curves(run / "report" / "curves.png", read_metrics(run), title=f"synthetic {task}")
    eer = done.result.metrics["eer"]
    shown = (
        f"EER {eer.text(percent=True)}" if eer.value is not None else "too few talkers for an EER"
    )
    lines = [
        f"{cell.condition} {cell.value}: EER {cell.metrics['eer'].text(percent=True)}"
        for cell in done.result.cells
        if "eer" in cell.metrics
    ]
    return {
        "text": f"{shown} on {listed.name} (synthetic; {eer.method})",
        "lines": lines,
        "result": done.result.to_dict(),
        "training": trained,
    }


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        typer.echo(text)
