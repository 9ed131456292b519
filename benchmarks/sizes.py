"""Small embeddings four ways: trained (at once, one after the other), cut, and by principal axes.

    python benchmarks/sizes.py [--runs runs/ablations] [--seeds 1,2]

Reads the runs that ``ablations.py sizes`` made, and the network they started from as it was.  For
every one: the equal error rate of the whole embedding on ``trials_test.txt`` and, for each size,
that of the part over that of the whole with the interval of the ratio, paired over speakers.
A cut takes the first values of an embedding that was not trained for it; principal axes are those
of the training clips' embeddings, without labels.  Nothing is chosen on the list.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from glottis.data import EvaluationTrials, Manifest
from glottis.models import load_model
from glottis.score import Embeddings, compare, resolve_checkpoint, score_trials, trial_voices
from glottis.score.metrics import EER_METRIC
from record_run import processor

SPEECH = Path(os.environ.get("GLOTTIS_SHARED", "../shared")) / "speech"
SIZES = (192, 128, 64)
TARGETS = {192: 1.05, 128: 1.10, 64: 1.20}
VARIANTS = {"one size": 0, "simultaneous": 1, "progressive": 2}
DRAWS = 1000


class List:
    """The trial list with the speakers of its sides."""

    def __init__(self) -> None:
        self.trials = EvaluationTrials.read(SPEECH / "lists" / "trials_test.txt")
        manifest = Manifest.read(SPEECH / "manifest.csv")
        speaker = dict(zip(manifest.column("path"), manifest.column("speaker"), strict=True))
        self.keys = [str(key) for key in self.trials.keys]
        whose = np.array([speaker[key] for key in self.keys])
        sides = (whose[self.trials.enrol], whose[self.trials.test])
        self.voices = trial_voices(self.trials.target, *sides)
        lines = (SPEECH / "lists" / "train.lst").read_text().splitlines()
        self.train = [SPEECH / line.split()[1] for line in lines]

    def ratio(self, whole: np.ndarray, part: np.ndarray) -> dict[str, Any]:
        """The EER of ``part`` over that of ``whole``, and their difference, paired."""
        found = compare(
            *(whole, part, self.trials.target, self.voices),
            {"eer": EER_METRIC},
            draws=DRAWS,
        )["eer"]
        return {
            "eer": found.b,
            "ratio": found.ratio,
            "ratio_95": [found.ratio_low, found.ratio_high],
            "difference_95": [found.low, found.high],
        }


def principal(train: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """(N, size) coordinates along the main axes of the training embeddings."""
    mean = train.mean(0)
    _, _, axes = np.linalg.svd(train - mean, full_matrices=False)
    return np.ascontiguousarray((matrix - mean) @ axes[:size].T, np.float32)


def measure(folder: Path, given: List, trained: bool) -> tuple[dict[str, Any], dict[Any, Any]]:
    """Every size of one model, and the scores by (way, size)."""
    model = load_model(resolve_checkpoint(folder))
    matrix = model.embed([SPEECH / key for key in given.keys]).numpy()
    embeddings = Embeddings(given.keys, matrix)
    whole = score_trials(embeddings, given.trials)
    scores: dict[Any, Any] = {("whole", matrix.shape[1]): whole}
    rows: dict[str, Any] = {"whole": given.ratio(whole, whole)["eer"]}
    way = "trained" if trained else "cut"
    for size in SIZES:
        scores[way, size] = score_trials(embeddings.cut(size), given.trials)
        rows[f"{way} {size}"] = given.ratio(whole, scores[way, size])
    if not trained:
        train = model.embed(given.train).numpy()
        for size in (matrix.shape[1], *SIZES):  # the whole too: what centring alone does
            part = Embeddings(given.keys, principal(train, matrix, size))
            scores["principal axes", size] = score_trials(part, given.trials)
            found = given.ratio(whole, scores["principal axes", size])
            rows[f"principal axes {size}"] = found
    return rows, scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--seeds", default="1,2")
    arguments = parser.parse_args()
    given = List()
    runs = arguments.runs / "sizes"
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python benchmarks/sizes.py --seeds {arguments.seeds}",
        "machine": {"processor": processor(), "cores": os.cpu_count(), "gpu": None},
        "list": "trials_test.txt",
        "targets": TARGETS,
    }
    first = arguments.seeds.split(",")[0]
    start, kept = measure(runs / f"0-seed{first}-start", given, trained=False)
    result["untouched"] = start
    for seed in arguments.seeds.split(","):
        all_scores: dict[str, Any] = {}
        for variant, number in VARIANTS.items():
            folder = runs / f"{number}-seed{seed}"
            rows, scores = measure(folder / "checkpoints" / "latest", given, variant != "one size")
            rows["run_id"] = json.loads((folder / "finished.json").read_text())["run_id"]
            whole = next(value for (way, _), value in scores.items() if way == "whole")
            before = next(value for (way, _), value in kept.items() if way == "whole")
            rows["whole against untouched"] = given.ratio(before, whole)
            all_scores[variant] = scores
            result.setdefault(variant, {})[f"seed {seed}"] = rows
        pairs = {}
        for size in SIZES:
            ours = all_scores["simultaneous"]["trained", size]
            for name, other in (
                ("progressive", all_scores["progressive"]["trained", size]),
                ("cut", all_scores["one size"]["cut", size]),
                ("principal axes", all_scores["one size"]["principal axes", size]),
            ):
                pairs[f"{size}: {name} over simultaneous"] = given.ratio(ours, other)
        result.setdefault("pairs", {})[f"seed {seed}"] = pairs
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
