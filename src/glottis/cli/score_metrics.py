"""``glottis score-metrics SCORES [--key FILE]``."""

from __future__ import annotations

from pathlib import Path

import typer

from glottis.cli._output import JSON_OPTION, print_json, print_result

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def score_metrics(
    scores: Path = typer.Argument(..., metavar="SCORES", help="Score file of any toolkit."),
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
    as_json: bool = JSON_OPTION,
) -> None:
    """EER, minDCF, actDCF, Cllr, t-DCF with intervals from a score file.

    Example: glottis score-metrics scores.txt --key veri_test2.txt --speakers manifest.parquet
    """
    from glottis.score import metrics_from_files, read_speakers

    report = metrics_from_files(
        scores,
        key,
        asv=asv,
        layout=layout,
        subset=subset,
        allow_extra=allow_extra,
        speakers=None if speakers is None else read_speakers(speakers),
        calibrated=calibrated,
    )
    if as_json:
        print_json(report.to_dict())
        return
    for remark in report.remarks:
        typer.echo(remark)
    print_result(report.result)
