"""``glottis prepare CORPUS SRC DST``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from glottis.cli._output import JSON_OPTION, print_json

if TYPE_CHECKING:
    from glottis.data import Manifest

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def prepare(
    corpus: str = typer.Argument(..., help="Name of the corpus; see 'glottis corpora'."),
    source: Path = typer.Argument(..., help="Folder of the corpus."),
    destination: Path = typer.Argument(..., help="Folder for manifest.parquet and the lists."),
    options: list[str] = typer.Argument(None, help="key=value options of the corpus."),
    dev: float = typer.Option(
        None, "--dev", help="Share of the speakers for selection; makes splits and trials_dev.txt."
    ),
    test: float = typer.Option(
        None, "--test", help="Share of the speakers for the report; makes trials_test.txt too."
    ),
    seed: int = typer.Option(10, help="Of splits and trials."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Read a corpus in its official layout into a manifest.

    With --dev (and --test) speakers are split, so that training, selection and report share none.

    Example: glottis prepare folder ~/voices data/voices --dev 0.1 --test 0.1
    """
    from glottis.configfile import apply_overrides
    from glottis.data.corpora import CORPORA
    from glottis.data.corpora import prepare as read_corpus
    from glottis.errors import DataError

    CORPORA[corpus]  # an unknown name is the first thing to say
    if not source.is_dir():
        raise DataError(f"{source} is not a folder", fix="give the folder of the corpus")
    prepared = read_corpus(corpus, source, **apply_overrides({}, options or []))
    manifest = prepared.manifest
    destination.mkdir(parents=True, exist_ok=True)
    lists = {name: str(file) for name, file in prepared.trials.items()}
    built: dict[str, str] = {}
    if dev is not None or test is not None:
        manifest = _split(manifest, dev or 0.0, test or 0.0, seed)
        for split in ("dev", "test"):
            if {"dev": dev, "test": test}[split]:
                path = destination / f"trials_{split}.txt"
                built[split] = _write_trials(manifest, split, path, seed)
                lists[f"trials_{split}"] = str(path)
    path = destination / "manifest.parquet"
    manifest.write(path)
    if as_json:
        print_json(
            {
                "manifest": str(path),
                "root": str(prepared.root),
                "summary": manifest.summary(),
                "counts": prepared.report.as_tree(),
                "lists": lists,
            }
        )
        return
    typer.echo(f"{len(manifest)} clips of {len(manifest.speakers())} speakers -> {path}")
    typer.echo(prepared.report.text())
    for name, file in lists.items():
        typer.echo(f"list {name}: {file}{'  ' + built[name[7:]] if name[7:] in built else ''}")
    typer.echo(f"next: glottis pack {path} {destination / 'store'} --root {prepared.root}")


def _split(manifest: Manifest, dev: float, test: float, seed: int) -> Manifest:
    from glottis.data import split_speakers

    shares = {"train": 1.0 - dev - test, "dev": dev, "test": test}
    return split_speakers(manifest, {k: v for k, v in shares.items() if v > 0}, seed)


def _write_trials(manifest: Manifest, split: str, path: Path, seed: int) -> str:
    """Trials of one split as ``1 path path`` lines; what could be built, in words."""
    from glottis.data import DevelopmentTrials, EvaluationTrials, TrialBuildConfig, build_trials

    kind: Any = DevelopmentTrials if split == "dev" else EvaluationTrials
    trials, report = build_trials(manifest.select(split=split), TrialBuildConfig(), seed, kind)
    trials.write(path)
    return str(report.text())
