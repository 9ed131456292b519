"""How long it takes to score a large trial list, and how much faster than a loop over trials.

    python benchmarks/bench_scoring.py [--rounds 30]

Prints JSON.  The list is synthetic, of the size of VoxCeleb1-E: 580,000 trials over 145,000
utterances with 192 values each.  Embeddings and list are in memory; everything from there to the
EER is timed.  The ratio is (time of a loop with one cosine per trial) / (time of ours) on the same
20,000 trials over 5,000 utterances (four trials each, like the large list), in rounds in which both
take their turn; their scores are compared before anything is timed.  Nothing is extrapolated.
Median, least and greatest over the rounds, after a warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from glottis.data import EvaluationTrials
from glottis.score import Embeddings, eer, score_trials
from glottis.score.intervals import measure
from glottis.score.metrics import speaker_metrics
from glottis.score.rates import ladder
from glottis.score.voices import trial_voices

DIMENSION, SPEAKERS = 192, 1_251
UTTERANCES, TRIALS = 145_000, 580_000
SMALL_UTTERANCES, SMALL_TRIALS = 5_000, 20_000
INTERVAL_TRIALS, INTERVAL_SPEAKERS, DRAWS = 5_000, 60, 1_000


def synthetic(
    rng: np.random.Generator, num_utterances: int, num_trials: int
) -> tuple[Embeddings, EvaluationTrials]:
    """Clusters of utterances, and as many targets as non-targets."""
    centres = rng.normal(0, 1, (SPEAKERS, DIMENSION)).astype(np.float32)
    speaker = rng.integers(0, SPEAKERS, num_utterances)
    noise = rng.standard_normal((num_utterances, DIMENSION), np.float32)
    names = [f"id{s:05d}/u{i:06d}.wav" for i, s in enumerate(speaker)]
    by_speaker = np.argsort(speaker, kind="stable")
    starts = np.searchsorted(speaker[by_speaker], np.arange(SPEAKERS + 1))
    enrol = rng.integers(0, num_utterances, num_trials)
    own = speaker[enrol]
    partner = starts[own] + (rng.random(num_trials) * np.diff(starts)[own]).astype(np.int64)
    test = np.where(
        np.arange(num_trials) % 2 == 0,
        by_speaker[partner],
        rng.integers(0, num_utterances, num_trials),
    )
    trials = EvaluationTrials.from_pairs(
        [names[i] for i in enrol], [names[i] for i in test], speaker[enrol] == speaker[test]
    )
    return Embeddings(names, centres[speaker] + 2.0 * noise), trials


def plain_loop(vectors: dict[str, np.ndarray], enrol: Sequence[str], test: Sequence[str]) -> Any:
    """One look-up, two norms and one product per trial."""
    scores = []
    for first, second in zip(enrol, test, strict=True):
        a, b = vectors[first], vectors[second]
        scores.append(float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))))
    return np.array(scores)


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median, least, greatest."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    embeddings, trials = synthetic(rng, UTTERANCES, TRIALS)
    own, small = synthetic(rng, SMALL_UTTERANCES, SMALL_TRIALS)
    target = trials.target

    def score_and_eer() -> None:
        scores = score_trials(embeddings, trials)
        eer(scores[target], scores[~target])

    enrol, test = small.enrol_keys.tolist(), small.test_keys.tolist()
    vectors = {str(u): row for u, row in zip(own.utterances, own.matrix, strict=True)}
    difference = np.abs(plain_loop(vectors, enrol, test) - score_trials(own, small)).max()
    if not difference < 2e-6:
        raise AssertionError(f"the two ways to score differ by {difference}")

    speakers = [f"s{i}" for i in rng.integers(0, INTERVAL_SPEAKERS, 2 * INTERVAL_TRIALS)]
    first, second = speakers[:INTERVAL_TRIALS], speakers[INTERVAL_TRIALS:]
    half = np.arange(INTERVAL_TRIALS) % 2 == 0
    second = [a if h else b for a, b, h in zip(first, second, half, strict=True)]
    is_target = np.array([a == b for a, b in zip(first, second, strict=True)])
    values = rng.normal(0, 1, INTERVAL_TRIALS) + 3 * is_target
    steps, voices = (
        ladder(values[is_target], values[~is_target]),
        trial_voices(is_target, first, second),
    )

    def intervals() -> Any:
        return measure(speaker_metrics(), steps, voices, n={}, draws=DRAWS)

    with_interval = sum(measured.low is not None for measured in intervals().values())

    large, scoring, loop, ours, drawn = [], [], [], [], []
    for turn in range(rounds + 1):
        found = (
            seconds(score_and_eer),
            seconds(lambda: score_trials(embeddings, trials)),
            seconds(lambda: plain_loop(vectors, enrol, test)),
            seconds(lambda: score_trials(own, small)),
            seconds(intervals),
        )
        if turn:  # the first turn warms up
            for column, value in zip((large, scoring, loop, ours, drawn), found, strict=True):
                column.append(value)
    report = {
        "benchmark": "scoring",
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "numpy": np.__version__,
            "dtype": "float32",
        },
        "rounds": rounds,
        "trials": TRIALS,
        "utterances": UTTERANCES,
        "dimension": DIMENSION,
        "score_and_eer_s": spread(large),
        "score_only_s": spread(scoring),
        "loop_trials": SMALL_TRIALS,
        "loop_utterances": SMALL_UTTERANCES,
        "loop_s": spread(loop),
        "ours_s": spread(ours),
        "ratio_loop_to_ours": spread([a / b for a, b in zip(loop, ours, strict=True)], 1),
        "largest_difference_of_scores": float(difference),
        "interval_trials": INTERVAL_TRIALS,
        "interval_draws": DRAWS,
        "interval_metrics": with_interval,
        "intervals_s": spread(drawn),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
