"""``glottis score-metrics SCORES... [--key FILE] [--fuse KIND]``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from glottis.cli._output import JSON_OPTION, print_json, print_result
from glottis.errors import ConfigError

KINDS = ("mean", "standardised", "logistic")

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def score_metrics(
    scores: list[Path] = typer.Argument(
        ..., metavar="SCORES", help="Score file of any toolkit; several with --fuse."
    ),
    key: Path = typer.Option(
        None, metavar="FILE", help="Trial list or protocol, if the file has no labels."
    ),
    asv: Path = typer.Option(
        None, metavar="FILE", help="Verification scores of the corpus, for t-DCF."
    ),
    layout: str = typer.Option(None, help="Layout of the score file, where it cannot be told."),
    subset: str = typer.Option(None, help="Subset of an ASVspoof 2021 key; default eval."),
    speakers: Path = typer.Option(
        None,
        "--speakers",
        metavar="FILE",
        help="Manifest, or lines 'utterance speaker': for intervals over speakers.",
    ),
    allow_extra: bool = typer.Option(
        False, "--allow-extra", help="Leave out scores of trials that the key does not have."
    ),
    calibrated: bool = typer.Option(
        False, "--calibrated", help="The scores are log-likelihood ratios."
    ),
    fuse: str = typer.Option(
        None,
        metavar="KIND",
        help="Make one system of several: mean, standardised or logistic.",
    ),
    weights: str = typer.Option(None, metavar="W,W,...", help="Weights of --fuse mean."),
    dev: list[Path] = typer.Option(
        [],
        "--dev",
        metavar="FILE",
        help="Development scores that --fuse learns on: one file per system, in their order.",
    ),
    dev_key: Path = typer.Option(
        None, metavar="FILE", help="Their trial list or protocol, if they have no labels."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """EER, minDCF, actDCF, Cllr, t-DCF with intervals from a score file.

    Example: glottis score-metrics scores.txt --key veri_test2.txt --speakers manifest.parquet
    """
    from glottis.score import fuse_files, metrics_from_files, read_speakers

    fused = None
    if fuse is not None:
        fused = fuse_files(
            scores,
            _kind(fuse),
            weights=None if weights is None else _numbers(weights),
            development=dev,
            development_key=dev_key,
            layout=layout,
        )
    elif len(scores) > 1 or weights is not None or dev or dev_key is not None:
        raise ConfigError(
            f"{len(scores)} score files, and no --fuse",
            why="how several systems become one is a choice",
            fix="--fuse mean, or --fuse logistic with --dev for each system",
        )
    report = metrics_from_files(
        scores[0] if fused is None else fused.table,
        key,
        asv=asv,
        layout=layout,
        subset=subset,
        allow_extra=allow_extra,
        speakers=None if speakers is None else read_speakers(speakers),
        calibrated=calibrated or (fused is not None and fused.fusion.calibrated),
    )
    if fused is not None:
        report = replace(report, remarks=(*fused.remarks, *report.remarks))
    if as_json:
        print_json(report.to_dict())
        return
    for remark in report.remarks:
        typer.echo(remark)
    print_result(report.result)


def _kind(word: str) -> Any:
    if word not in KINDS:
        raise ConfigError(f"there is no fusion '{word}'", fix=f"known: {', '.join(KINDS)}")
    return word


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--weights {text} is not a list of numbers", fix="for example --weights 0.7,0.3"
        ) from None
