"""``glottis prepare CORPUS SRC DST``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from glottis.cli._output import JSON_OPTION, print_json, require_folder

if TYPE_CHECKING:
    from glottis.data import Manifest, Trials

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def prepare(
    corpus: str = typer.Argument(..., metavar="CORPUS", help="Its name; see 'glottis corpora'."),
    source: Path = typer.Argument(..., metavar="SRC", help="Folder of the corpus."),
    destination: Path = typer.Argument(
        ..., metavar="DST", help="Folder for manifest.parquet and the lists."
    ),
    options: list[str] = typer.Argument(
        None, metavar="KEY=VALUE", help="Options of the corpus; see 'glottis corpora CORPUS'."
    ),
    dev: float = typer.Option(
        None,
        "--dev",
        min=0.0,
        max=1.0,
        help="Share of the speakers for selection; makes splits and trials_dev.txt.",
    ),
    test: float = typer.Option(
        None,
        "--test",
        min=0.0,
        max=1.0,
        help="Share of the speakers for the report; makes trials_test.txt too.",
    ),
    seed: int = typer.Option(10, min=0, help="Of splits and trials."),
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
    require_folder(destination)
    prepared = read_corpus(corpus, source, **apply_overrides({}, options or []))
    shares = {name: share for name, share in (("dev", dev), ("test", test)) if share}
    manifest, built = _split(prepared.manifest, shares, seed)
    destination.mkdir(parents=True, exist_ok=True)
    table = destination / "manifest.parquet"
    manifest.write(table)
    lists = {name: str(file) for name, file in prepared.trials.items()}
    for split, (trials, _) in built.items():
        path = destination / f"trials_{split}.txt"
        trials.write(path)
        lists[f"trials_{split}"] = str(path)
    if as_json:
        print_json(
            {
                "manifest": str(table),
                "root": str(prepared.root),
                "summary": manifest.summary(),
                "counts": prepared.report.as_tree(),
                "lists": lists,
                "trials": {split: text for split, (_, text) in built.items()},
            }
        )
        return
    typer.echo(f"{len(manifest):,} clips of {len(manifest.speakers()):,} speakers -> {table}")
    typer.echo(prepared.report.text())
    for name, file in lists.items():
        typer.echo(f"list {name}: {file}")
    for split, (_, text) in built.items():
        typer.echo(f"trials_{split}: {text}")
    words = ["glottis", "pack", str(table), str(destination / "store")]
    typer.echo(f"next: {shlex.join([*words, '--root', str(prepared.root)])}")


def _split(
    manifest: Manifest, shares: dict[str, float], seed: int
) -> tuple[Manifest, dict[str, tuple[Trials, str]]]:
    """The manifest with its splits, and for each share the trials with what could be built."""
    from glottis.data import split_speakers
    from glottis.errors import ConfigError

    if not shares:
        return manifest, {}
    train = 1.0 - sum(shares.values())
    if train < 1e-6:
        raise ConfigError(
            "--dev and --test together take all speakers", fix="leave some to train on"
        )
    manifest = split_speakers(manifest, {"train": train, **shares}, seed)
    return manifest, {split: _trials(manifest, split, seed) for split in shares}


def _trials(manifest: Manifest, split: str, seed: int) -> tuple[Trials, str]:
    from glottis.data import DevelopmentTrials, EvaluationTrials, TrialBuildConfig, build_trials
    from glottis.errors import DataError

    kind: Any = DevelopmentTrials if split == "dev" else EvaluationTrials
    try:
        trials, report = build_trials(manifest.select(split=split), TrialBuildConfig(), seed, kind)
    except DataError as error:
        raise DataError(
            f"no trials for the split {split}: {error.seen}",
            why=error.why,
            fix=f"give --{split} a larger share",
            rule=error.rule,
        ) from None
    return trials, report.text()
