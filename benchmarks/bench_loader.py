"""How fast training batches are made: packed store against decoding files.

Three ways to the same crops, alternating round by round in one process (no workers):

    packed    glottis: a memory-mapped slice of the packed store
    seek      glottis without a store: seek in the file, decode only the crop
    whole     the research trainers' way: decode the whole file, then crop

Prints JSON: clips per second of each (median, min, max over rounds) and the ratios of each round.
The crops of all three are asserted equal.  Uses the speech of GLOTTIS_SHARED (or ../shared), or
synthetic talkers with --synthetic.

Run: .venv/bin/python benchmarks/bench_loader.py [--rounds 7] [--synthetic]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from glottis.audio import PackedStore, PackItem, pack
from glottis.data import Manifest
from glottis.data.dataset import CropDataset, Draw
from glottis.data.source import FileSource, StoreSource
from glottis.synth import SynthConfig, generate

CROP_SECONDS = 2.0
RATE = 16000
BATCH = 64


class WholeFileSource:
    """Decodes the whole file for every crop; lengths from the headers, as the others have them."""

    sample_rate = RATE

    def __init__(self, root: Path, paths: list[str]) -> None:
        self.files = [str(root / path) for path in paths]
        self.lengths = [soundfile.info(file).frames for file in self.files]

    def num_samples(self, row: int) -> int:
        return self.lengths[row]

    def read(self, row: int, start: int, count: int) -> np.ndarray:
        samples, _ = soundfile.read(self.files[row], dtype="int16")
        return samples[start : start + count]


def corpus(synthetic: bool, folder: Path) -> tuple[Path, Manifest]:
    shared = Path(os.environ.get("GLOTTIS_SHARED", "../shared")) / "speech"
    if synthetic or not shared.is_dir():
        made = generate(
            folder / "corpus", SynthConfig(train_talkers=4, dev_talkers=4, eval_talkers=4)
        )
        return made.root, Manifest.read(made.manifest)
    manifest = Manifest.read(shared / "manifest.csv")
    return shared, manifest.where(manifest.column("split") == "train")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--synthetic", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root, manifest = corpus(options.synthetic, folder)
        utterances = [str(u) for u in manifest.column("utterance")]
        paths = [str(p) for p in manifest.column("path")]
        items = [PackItem(u, root / p) for u, p in zip(utterances, paths, strict=True)]
        pack(items, folder / "store", workers=0)
        sources = {
            "packed": StoreSource(PackedStore(folder / "store"), utterances),
            "seek": FileSource(root, paths, RATE, cache_mb=0),
            "whole": WholeFileSource(root, paths),
        }
        datasets = {
            key: CropDataset(
                source,
                np.zeros(len(paths), int),
                utterances,
                crop_samples=round(CROP_SECONDS * RATE),
                short_clips="repeat",
                seed=1,
                num_classes=1,
            )
            for key, source in sources.items()
        }
        speeds: dict[str, list[float]] = {key: [] for key in datasets}
        for turn in range(options.rounds + 1):  # the first round warms the file cache
            rows = np.random.default_rng(turn).integers(0, len(paths), (options.batches, BATCH))
            waves = {}
            for key, dataset in datasets.items():
                began = time.perf_counter()
                batches = [
                    dataset.__getitems__([Draw(turn, i, int(row)) for i, row in enumerate(batch)])
                    for batch in rows
                ]
                seconds = time.perf_counter() - began
                waves[key] = np.stack([batch.wave.numpy() for batch in batches])
                if turn:
                    speeds[key].append(rows.size / seconds)
            assert all(np.array_equal(waves["packed"], wave) for wave in waves.values())
    print(json.dumps(report(speeds, len(paths)), indent=2))


def report(speeds: dict[str, list[float]], clips: int) -> dict[str, object]:
    def spread(values: list[float]) -> dict[str, float]:
        return {
            "median": round(statistics.median(values), 2),
            "min": round(min(values), 2),
            "max": round(max(values), 2),
        }

    ratios = {
        f"packed / {key}": spread(
            [a / b for a, b in zip(speeds["packed"], speeds[key], strict=True)]
        )
        for key in ("seek", "whole")
    }
    return {
        "benchmark": "training crops of 2 s, one process, equal outputs asserted",
        "clips": clips,
        "clips_per_second": {key: spread(values) for key, values in speeds.items()},
        "ratio": ratios,
        "rounds": len(speeds["packed"]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


if __name__ == "__main__":
    main()
