"""How often a nominal 95 % interval holds the truth, by simulation.

    python benchmarks/interval_coverage.py [--sets 200]

Prints JSON: the share of the given intervals that hold the truth, and the share of data sets for
which none was given because one trial weighs too much in a minimum.  Every data set has speakers
with their own difficulty: target scores are 4 + N(0, 1) per speaker + N(0, 1) per trial, non-target
scores N(0, 0.36) for either speaker + N(0, 1) per trial; 8 targets per speaker, every speaker
against every other.  The true EER and minDCF follow from the two Gaussians.  ``speakers`` is our
interval, ``trials`` a bootstrap that does not know the speakers.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from scipy.special import ndtr

from glottis.score import CostModel, Measured
from glottis.score.intervals import measure
from glottis.score.metrics import EER_METRIC, min_dcf_metric
from glottis.score.rates import Ladder, ladder
from glottis.score.voices import Voices, trial_voices

TARGET_STD, OTHER_STD, DISTANCE, PER_SPEAKER, DRAWS = np.sqrt(2.0), np.sqrt(1.72), 4.0, 8, 500
METRICS = {
    "eer": EER_METRIC,
    "min_dcf_0.05": min_dcf_metric(CostModel(0.05)),
    "min_dcf_0.01": min_dcf_metric(CostModel(0.01)),
}


def truth() -> dict[str, float]:
    """The values for infinitely many speakers and trials."""
    thresholds = np.linspace(-5, 15, 200_001)
    miss = ndtr((thresholds - DISTANCE) / TARGET_STD)
    accepted = ndtr(-thresholds / OTHER_STD)
    values = {"eer": float(ndtr(-DISTANCE / (TARGET_STD + OTHER_STD)))}
    for prior in (0.05, 0.01):
        cost = miss + accepted * (1 - prior) / prior
        values[f"min_dcf_{prior}"] = float(cost.min())
    return values


def data_set(rng: np.random.Generator, num_speakers: int) -> tuple[Ladder, Voices]:
    speakers = np.arange(num_speakers)
    own, other = rng.normal(0, 1.0, num_speakers), rng.normal(0, 0.6, num_speakers)
    same = np.repeat(speakers, PER_SPEAKER)
    first, second = (grid.ravel() for grid in np.meshgrid(speakers, speakers, indexing="ij"))
    first, second = first[first != second], second[first != second]
    target = DISTANCE + own[same] + rng.normal(0, 1, len(same))
    nontarget = other[first] + other[second] + rng.normal(0, 1, len(first))
    is_target = np.arange(len(same) + len(first)) < len(same)
    enrol = [str(i) for i in (*same, *first)]
    test = [str(i) for i in (*same, *second)]
    return ladder(target, nontarget), trial_voices(is_target, enrol, test)


def holds(measured: Measured, value: float) -> bool:
    return measured.low is not None and measured.low <= value <= (measured.high or 0.0)


def coverage(found: list[Measured], value: float) -> dict[str, float | None]:
    given = [measured for measured in found if measured.low is not None]
    share = sum(holds(measured, value) for measured in given) / len(given) if given else None
    return {
        "holds": None if share is None else round(share, 3),
        "withheld": round(1 - len(given) / len(found), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=200)
    sets = parser.parse_args().sets
    true = truth()
    rows = []
    for num_speakers in (10, 20, 40):
        rng = np.random.default_rng(num_speakers)
        found: dict[str, list[dict[str, Measured]]] = {"speakers": [], "trials": []}
        for number in range(sets):
            trials, voices = data_set(rng, num_speakers)
            for way, known in (("speakers", voices), ("trials", None)):
                found[way].append(measure(METRICS, trials, known, n={}, seed=number, draws=DRAWS))
        for way, results in found.items():
            shares = {
                name: coverage([result[name] for result in results], value)
                for name, value in true.items()
            }
            rows.append({"speakers": num_speakers, "bootstrap": way, **shares})
    print(json.dumps({"nominal": 0.95, "sets": sets, "true": true, "coverage": rows}, indent=2))


if __name__ == "__main__":
    main()
