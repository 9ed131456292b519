"""A tiny corpus of harmonic tones: enough to train something, written in a second.

Every speaker has a pitch and a spectral tilt of its own; spoofs lack the upper harmonics.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from glottis.config import build
from glottis.rng import generator
from glottis.train import Recipe

RATE = 16000


def tone(seed: int, speaker: int, clip: int, seconds: float, spoof: bool) -> np.ndarray:
    rng = generator(seed, "tone", speaker, clip, int(spoof))
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 90 + 17 * speaker + rng.uniform(-4, 4)
    harmonics = np.arange(1, 8 if spoof else 30)
    levels = harmonics ** -(0.6 + 0.15 * (speaker % 5))
    phases = rng.uniform(0, 2 * np.pi, len(harmonics))
    wave = (
        levels[:, None] * np.sin(2 * np.pi * pitch * harmonics[:, None] * time + phases[:, None])
    ).sum(0)
    wave = wave * (1 + 0.5 * np.sin(2 * np.pi * rng.uniform(2, 5) * time))
    wave = wave / np.abs(wave).max() * 0.3 + 0.01 * rng.standard_normal(len(time))
    return wave.astype(np.float32)


def write_corpus(
    root: Path, *, train: int = 6, dev: int = 4, clips: int = 4, seconds: float = 0.8, seed: int = 3
) -> Path:
    """Audio, ``manifest.csv``, ``trials_dev.txt``, ``cm.dev.txt`` below ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    rows, dev_rows = [], []
    for speaker in range(train + dev):
        split = "train" if speaker < train else "dev"
        for clip in range(clips):
            for spoof in (False, True):
                label = "spoof" if spoof else "bonafide"
                name = f"s{speaker:02d}_{clip}_{label}"
                wave = tone(seed, speaker, clip, seconds, spoof)
                soundfile.write(root / f"{name}.wav", wave, RATE, subtype="PCM_16")
                row = {
                    **{"utterance": name, "path": f"{name}.wav", "speaker": f"s{speaker:02d}"},
                    **{"session": str(clip), "split": split, "label": label},
                    **{
                        "attack": "T01" if spoof else "",
                        "duration_s": seconds,
                        "sample_rate": RATE,
                    },
                    **{"gender": "f", "language": "none", "channel": "", "source": "tones"},
                    "licence": "CC0-1.0",
                }
                rows.append(row)
                if split == "dev":
                    dev_rows.append(row)
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    bona = [r for r in dev_rows if r["label"] == "bonafide"]
    pairs = [(a, b) for i, a in enumerate(bona) for b in bona[i + 1 :]]
    (root / "trials_dev.txt").write_text(
        "".join(f"{int(a['speaker'] == b['speaker'])} {a['path']} {b['path']}\n" for a, b in pairs)
    )
    (root / "cm.dev.txt").write_text(
        "".join(
            f"{r['speaker']} {r['utterance']} - {r['attack'] or '-'} {r['label']}\n"
            for r in dev_rows
        )
    )
    return root


def speaker_tree(root: Path, **changes: Any) -> dict[str, Any]:
    """A recipe (as a tree) that trains a small speaker model on the corpus in seconds."""
    tree: dict[str, Any] = {
        "task": "speaker",
        "seed": 5,
        "data": {
            **{"root": str(root), "manifest": str(root / "manifest.csv")},
            **{"train": {"split": "train", "label": "bonafide"}},
            **{"crop_seconds": 0.4, "workers": 0},
        },
        "batch": {"size": 8},
        "model": {"name": "resnetse34l", "embedding_size": 16},
        "loss": {"name": "aam_softmax", "margin": 0.1, "scale": 15.0},
        "optim": {"name": "adam", "rate": 1e-3},
        "train": {"steps": 6},
        "evaluate": {"trials": str(root / "trials_dev.txt"), "every_steps": 6},
        "checkpoint": {"every_steps": 3},
        "log": {"every_steps": 2},
        "runtime": {"device": "cpu"},
    }
    return merged(tree, changes)


def spoof_tree(root: Path, **changes: Any) -> dict[str, Any]:
    """The same for a small countermeasure (with dropout)."""
    tree = speaker_tree(root)
    tree |= {
        "task": "spoof",
        "model": {
            **{"name": "aasist_l", "channels": [4, 4], "graph_sizes": [4, 4]},
            **{"num_filters": 12, "kernel_size": 33},
        },
        "loss": {"name": "weighted_cross_entropy"},
        "evaluate": {
            "protocol": str(root / "cm.dev.txt"),
            "every_steps": 6,
            "window": {"seconds": 0.4},
        },
    }
    tree["data"]["train"] = {"split": "train"}
    return merged(tree, changes)


def merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``{"train__steps": 4}`` over a tree."""
    for key, value in changes.items():
        *sections, last = key.split("__")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return tree


def recipe(tree: dict[str, Any]) -> Recipe:
    return build(Recipe, tree, "test recipe")
