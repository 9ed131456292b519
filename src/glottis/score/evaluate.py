"""From scores and a list to a result: pooled numbers, tables by condition, notes.

What a table may show is decided in `glottis.score.parts`.  N trials, U distinct utterances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from glottis.data import Manifest, Protocol, Trials
from glottis.errors import ResultError
from glottis.score._checks import ArrayLike, BoolArray, Names, listed
from glottis.score.detection_cost import ASVSPOOF5, CostModel, min_cost
from glottis.score.eer import crossing
from glottis.score.intervals import measure
from glottis.score.metrics import sasv_metrics, speaker_metrics, spoof_metrics
from glottis.score.parts import Part, Resampled, checked_for, distinct, per_item
from glottis.score.rates import Sample, ladder
from glottis.score.results import SasvResult, SpeakerResult, SpoofResult
from glottis.score.tandem import AsvRates
from glottis.score.voices import Voices, clip_voices, sasv_voices, trial_voices

MIXED = "mixed"
NONE = "(none)"
_UNCALIBRATED = (
    "actDCF and Cllr read the scores as natural-log likelihood ratios; these scores are not "
    "calibrated, so compare min and act values only after calibration"
)


def evaluate_speaker(
    scores: ArrayLike,
    trials: Trials,
    speakers: Names | None,
    conditions: Mapping[str, Names] | None = None,
    *,
    calibrated: bool = False,
    how: Resampled | None = None,
) -> SpeakerResult:
    """Speaker verification: EER, minDCF and actDCF at 0.01 and 0.05, Cllr, tables by condition.

    scores: (N,), higher = same speaker.  speakers: (U,) speaker of each of ``trials.keys``; None =
    unknown (the interval is then a trial bootstrap and says so).  conditions: name -> (U,) value of
    each key, for example the source; a trial belongs to a value if *both* sides do, all other
    trials to the row "mixed".  calibrated: the scores are log-likelihood ratios.
    """
    if trials.spoof.any():
        raise ResultError(
            f"{trials.source} holds {int(trials.spoof.sum())} spoof trials",
            why="they are neither targets nor zero-effort impostors",
            fix="use evaluate_sasv, or leave them out",
        )
    how = how or Resampled()
    values, is_target = checked_for(scores, len(trials)), trials.target
    names = None if speakers is None else per_item(speakers, len(trials.keys), "speakers")
    if names is not None and np.any(names == ""):
        empty = np.flatnonzero(names == "")
        raise ResultError(
            f"{empty.size} utterances have no speaker: {listed(trials.keys, empty)}",
            why="an interval over speakers needs every speaker",
            fix="fill the manifest's column 'speaker', or pass speakers=None",
        )

    def voices(mask: BoolArray) -> Voices | None:
        if names is None:
            return None
        enrol, test = names[trials.enrol[mask]], names[trials.test[mask]]
        return trial_voices(is_target[mask], enrol, test)

    metrics = speaker_metrics()
    everything = np.ones(len(trials), np.bool_)
    pooled = Part(values, is_target, voices(everything), ("targets", "nontargets"))
    cells = []
    for condition, column in (conditions or {}).items():
        of_key = per_item(column, len(trials.keys), condition)
        first, second = of_key[trials.enrol], of_key[trials.test]
        known = [
            (value or NONE, (first == value) & (second == value)) for value in distinct(of_key)
        ]
        for value, mask in [*known, (MIXED, first != second)]:
            if mask.any():
                part = Part(values[mask], is_target[mask], voices(mask), pooled.names)
                shown = {name: metrics[name] for name in ("eer", "min_dcf_0.05")}
                cells.append(part.cell(condition, value, shown, how))
    rare, common = CostModel(0.01), CostModel(0.05)
    return SpeakerResult(
        metrics=pooled.measure(metrics, how),
        points=pooled.points(metrics),
        thresholds={
            "eer": crossing(pooled.sample.rates)[1],
            "min_dcf_0.01": min_cost(pooled.sample, *rare.weights).threshold,
            "min_dcf_0.05": min_cost(pooled.sample, *common.weights).threshold,
        },
        n=pooled.n,
        cells=tuple(cells),
        notes=(*pooled.notes(), *(() if calibrated else (_UNCALIBRATED,))),
        data=trials.summary(),
        run_id=how.run_id,
    )


def evaluate_spoof(
    scores: ArrayLike,
    protocol: Protocol,
    conditions: Mapping[str, Names] | None = None,
    *,
    asv: AsvRates | None = None,
    calibrated: bool = False,
    how: Resampled | None = None,
) -> SpoofResult:
    """A countermeasure: EER, ASVspoof 5 costs, Cllr, t-DCF where ``asv`` is given; per attack.

    scores: (N,), higher = bona fide.  conditions: further columns (N,) over those of the protocol,
    for example the channel.  Per attack, all bona fide trials meet the spoofs of that attack; in
    the other tables both classes come from the condition.
    """
    how = how or Resampled()
    values, bonafide = checked_for(scores, len(protocol)), protocol.bonafide
    speakers = protocol.speaker
    known = bool(np.all((speakers != "") & (speakers != "-")))

    def part(mask: BoolArray) -> Part:
        voices = clip_voices(bonafide[mask], speakers[mask]) if known else None
        return Part(values[mask], bonafide[mask], voices, ("bona fide", "spoof"))

    metrics = spoof_metrics(asv)
    shown = {name: metrics[name] for name in ("eer", "min_dcf")}
    pooled = part(np.ones(len(protocol), np.bool_))
    cells = [
        part(bonafide | (protocol.attack == attack)).cell("attack", attack, shown, how)
        for attack in protocol.attacks()
    ]
    columns = {**protocol.conditions, **(conditions or {})}
    for condition, column in columns.items():
        of_clip = per_item(column, len(protocol), condition)
        if len(distinct(of_clip)) > 1:
            cells += [
                part(of_clip == value).cell(condition, value or NONE, shown, how)
                for value in distinct(of_clip)
            ]
    return SpoofResult(
        metrics=pooled.measure(metrics, how),
        points=pooled.points(metrics),
        thresholds={
            "eer": crossing(pooled.sample.rates)[1],
            "min_dcf": min_cost(pooled.sample, *ASVSPOOF5.weights).threshold,
        },
        n=pooled.n,
        cells=tuple(cells),
        notes=(*pooled.notes(), *(() if calibrated else (_UNCALIBRATED,))),
        data=protocol.summary(),
        run_id=how.run_id,
    )


def evaluate_sasv(
    scores: ArrayLike,
    trials: Trials,
    speakers: Names | None,
    *,
    how: Resampled | None = None,
) -> SasvResult:
    """One score per trial against targets, non-targets and spoofs: a-DCF and three EERs.

    speakers: (U,) speaker of each of ``trials.keys``; the enrolled one is resampled.
    """
    how = how or Resampled()
    values = checked_for(scores, len(trials))
    kind = np.where(trials.spoof, 2, np.where(trials.target, 0, 1))
    groups = [values[kind == number] for number in range(3)]
    steps = ladder(*groups)  # raises if a class is missing
    voices = None
    if speakers is not None:
        names = per_item(speakers, len(trials.keys), "speakers")
        voices = sasv_voices(kind, names[trials.enrol])
    labels = ("targets", "nontargets", "spoofs")
    n = {"trials": len(kind), **dict(zip(labels, steps.sizes, strict=True))}
    metrics = sasv_metrics()
    whole = Sample(steps)
    measured = measure(
        metrics, steps, voices, n=n, seed=how.seed, draws=how.draws, run_id=how.run_id
    )
    return SasvResult(
        metrics=measured,
        points={name: metric.value(whole) for name, metric in metrics.items()},
        thresholds={},
        n=n,
        data=trials.summary(),
        run_id=how.run_id,
    )


def trial_columns(trials: Trials, manifest: Manifest, names: Sequence[str]) -> dict[str, Names]:
    """(U,) values of manifest columns for ``trials.keys``: ``["speaker", "source"]``."""
    table = manifest.take(trials.rows(manifest))
    return {name: table.column(name) for name in names}
