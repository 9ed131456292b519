"""Two-stage search against exact search: recall and speed-up at 10,000 to 1,000,000 voice prints.

    python benchmarks/bench_search.py RUN [--counts 10000,100000,1000000] [--rounds 5]

RUN is a Matryoshka run.  Its embeddings of the speech pack give the covariance between speakers and
within them; voice prints and queries (200 of the enrolled speakers, another recording each) are
drawn from these.  A query is searched alone.  Recall: share of the queries for which two stages
name the same best match as exact search; right: share whose best match is the speaker, for both.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glottis.data import Manifest
from glottis.data.source import FileSource
from glottis.models import load_model
from glottis.rng import generator
from glottis.score import Embeddings, Extraction, embed_clips, resolve_checkpoint
from glottis.score.search import Gallery
from record_run import processor

SPEECH = Path(os.environ.get("GLOTTIS_SHARED", "../shared")) / "speech"
QUERIES, TOP = 200, 1
SHORTLISTS = (20, 50, 100, 200, 500, 1000)


def covariances(
    run: Path, held_out: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int], str]:
    """(D,) mean, roots (D, D) of the covariances between and within speakers, the sizes."""
    model = load_model(resolve_checkpoint(run))
    manifest = Manifest.read(SPEECH / "manifest.csv")
    labels, splits = manifest.column("label"), manifest.column("split")
    known = ("train",) if held_out else ()
    bona = [i for i in range(len(manifest)) if labels[i] != "spoof" and splits[i] not in known]
    rows = manifest.take(np.array(bona))
    source = FileSource(SPEECH, [str(p) for p in rows.column("path")], model.sample_rate, 0.0)
    names = [str(u) for u in rows.column("utterance")]
    how = Extraction(batch_seconds=60.0)
    matrix = embed_clips(model, names, source, how).matrix.astype(np.float64)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    _, speaker = np.unique(rows.column("speaker").astype(str), return_inverse=True)
    counts = np.bincount(speaker)
    means = np.stack([np.bincount(speaker, column) for column in matrix.T], 1) / counts[:, None]
    many = counts[speaker] > 1
    rest = (matrix - means[speaker])[many]
    within = rest.T @ rest / (many.sum() - (counts > 1).sum())
    centred = means - means.mean(0)
    between = centred.T @ centred / (len(means) - 1) - within * np.mean(1 / counts)
    about = f"{len(matrix):,} clips of {len(means)} speakers"
    about += ", none of them of the training data" if held_out else ", those of the training too"
    return means.mean(0), root(between), root(within), list(model.dims), about


def root(covariance: np.ndarray) -> np.ndarray:
    """A matrix R with R R^T = the covariance, negative variances set to 0."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.clip(values, 0, None)))


def drawn(rng: np.random.Generator, base: np.ndarray, spread: np.ndarray, count: int) -> np.ndarray:
    """(count, D) rows of base + spread z, in blocks."""
    made = np.empty((count, spread.shape[0]), np.float32)
    for start in range(0, count, 65536):
        part = made[start : start + 65536]
        noise = rng.standard_normal(part.shape, np.float32) @ spread.T.astype(np.float32)
        part[:] = noise + (base if base.ndim == 1 else base[start : start + len(part)])
    return made


def timed(search: Callable[[np.ndarray], Any], queries: np.ndarray) -> tuple[float, list[int]]:
    """Median milliseconds of one query, and the best row of each."""
    seconds, best = [], []
    for query in queries:
        began = time.perf_counter()
        rows, _ = search(query[None])
        seconds.append(time.perf_counter() - began)
        best.append(int(rows[0, 0]))
    return 1000 * float(np.median(seconds)), best


def measure(count: int, rounds: int, about: Any) -> dict[str, Any]:
    mean, between, within, dims, _ = about
    rng = generator(0, "search", count)
    speakers = drawn(rng, mean, between, count)
    prints = drawn(rng, speakers, within, count)
    chosen = rng.choice(count, QUERIES, replace=False)
    queries = drawn(rng, speakers[chosen], within, QUERIES)
    gallery = Gallery(Embeddings([str(i) for i in range(count)], prints, {"dims": dims}))
    rows = {f"shortlist {n}": [] for n in SHORTLISTS if n < count}  # type: ignore[var-annotated]
    exact_ms, found = [], {}
    for _ in range(rounds):  # alternating, so that a busy moment hits both
        milliseconds, exact = timed(lambda q: gallery.search(q, TOP), queries)
        exact_ms.append(milliseconds)
        for n in (n for n in SHORTLISTS if n < count):
            two, best = timed(lambda q, n=n: gallery.search(q, TOP, n), queries)  # type: ignore[misc]
            rows[f"shortlist {n}"].append((two, milliseconds / two))
            found[f"shortlist {n}"] = best
    right = np.array(exact) == chosen
    table: dict[str, Any] = {
        "exact": {"ms": float(np.median(exact_ms)), "right": float(right.mean())}
    }
    for name, values in rows.items():
        milliseconds, ratios = np.array(values).T
        table[name] = {
            "ms": float(np.median(milliseconds)),
            "speed_up": [float(v) for v in (np.median(ratios), ratios.min(), ratios.max())],
            "recall": float(np.mean(np.array(found[name]) == np.array(exact))),
            "right": float(np.mean(np.array(found[name]) == chosen)),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--counts", default="10000,100000,1000000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--held-out", action="store_true", help="covariances of speakers that were not trained on"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    about = covariances(arguments.run, arguments.held_out)
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python benchmarks/bench_search.py runs/{arguments.run.name}"
        + (" --held-out" if arguments.held_out else ""),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "gpu": None, "threads": 1},
        "voices": about[-1],
        "sizes": about[3],
        "queries": QUERIES,
    }
    for count in map(int, arguments.counts.split(",")):
        result[f"{count} voice prints"] = measure(count, arguments.rounds, about)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
