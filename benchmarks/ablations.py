"""Several variants of one recipe, several seeds, one evaluation list; paired comparisons.

    GLOTTIS_SHARED=... python benchmarks/ablations.py EXPERIMENT [--out runs/ablations]
        [--seeds 1,2,3] [key=value ...]

EXPERIMENT: one of EXPERIMENTS below (nested_fixes, sizes, stages ...).  Trains every variant with
every seed (a run that is finished is not made again), scores the list with the last checkpoint and
prints JSON: the equal error rate of every run with its interval, and the difference to the first
variant and to the one before, on the same trials with the same seed, paired over speakers.
No checkpoint and no variant is chosen on the list.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from glottis.data import Manifest
from glottis.models import build_model, import_weights, save_model
from glottis.rng import generator, stream_key
from glottis.score import Comparison, compare, trial_voices
from glottis.score.checkpoint import Evaluated, evaluate_checkpoint
from glottis.score.clips import open_clips
from glottis.score.metrics import EER_METRIC
from glottis.score.voices import Voices, clip_voices
from glottis.train import load_recipe, train_recipe
from record_run import processor

ROOT = Path(__file__).parent.parent
SPEECH = Path(os.environ.get("GLOTTIS_SHARED", "../shared")) / "speech"


@dataclass(frozen=True)
class Experiment:
    """A recipe and what is changed in it: name of the variant -> overrides.

    start: makes the initial weights of a variant from (variant, recipe, folder), or None.
    lists: writes lists of its own into a folder and gives the overrides that name them.
    """

    recipe: str
    evaluate: tuple[str, str]
    variants: dict[str, tuple[str, ...]]
    common: tuple[str, ...] = ()
    start: Callable[[str, Any, Path], Path | None] = field(default=lambda *_: None)
    lists: Callable[[Path], tuple[str, ...]] = field(default=lambda _: ())


def aasist_start(variant: str, recipe: Any, folder: Path) -> Path | None:
    """AASIST at other initial weights than its own."""
    if variant == "as published":
        return None
    key = stream_key(recipe.seed, "initialise")[0] >> 1
    model = build_model(recipe.model, recipe.features, seed=key)
    for module in model.modules():
        if not isinstance(module, nn.Conv2d | nn.Conv1d | nn.Linear):
            continue
        if variant == "every layer Kaiming or Xavier, biases 0":
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        else:
            nn.init.normal_(module.weight, std=0.01)
    save_model(model, folder)
    return folder


def published_ge2e(variant: str, recipe: Any, folder: Path) -> Path:
    """The encoder that others trained on thousands of speakers."""
    path = SPEECH.parent / "golden" / "ge2e_weights.safetensors"
    save_model(import_weights("ge2e", path), folder)
    return folder


def more_development_speakers(folder: Path) -> tuple[str, ...]:
    """90 of the training speakers are held out, their trials added to the development list."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = generator(0, "held out")
    with (SPEECH / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    listed = set((SPEECH / "lists" / "train.lst").read_text().split())
    mine = [row for row in rows if {row["path"], row["utterance"]} & listed]
    speakers = sorted({row["speaker"] for row in mine})
    held = set(rng.choice(speakers, 90, replace=False).tolist())
    out = [row for row in mine if row["speaker"] in held]
    for row in rows:  # a voice is in one split; its spoofs too
        row["split"] = "dev" if row["speaker"] in held else row["split"]
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    kept = [row for row in mine if row["speaker"] not in held]
    lines = "".join(f"{row['speaker']} {row['path']}\n" for row in kept)
    (folder / "train.lst").write_text(lines)
    lines = (SPEECH / "lists" / "trials_dev.txt").read_text().splitlines()
    for i, row in enumerate(out):
        lines += [f"1 {row['path']} {o['path']}" for o in out[:i] if o["speaker"] == row["speaker"]]
        others = [o for o in out[:i] if o["speaker"] != row["speaker"]]
        some = rng.permutation(len(others))[:24]
        lines += [f"0 {row['path']} {others[k]['path']}" for k in some]
    (folder / "trials.txt").write_text("".join(f"{line}\n" for line in lines))
    return (
        f"data.manifest={folder / 'manifest.csv'}",
        f"data.train.list_file={folder / 'train.lst'}",
        f"evaluate.trials={folder / 'trials.txt'}",
    )


def phases(*each: dict[str, Any]) -> str:
    """An override that replaces the phases of a recipe."""
    return f"phases={json.dumps(each)}"


TRIALS = ("trials", str(SPEECH / "lists" / "trials_dev.txt"))
TEST = ("trials", str(SPEECH / "lists" / "trials_test.txt"))
TENTH = {"part_rates": {"head": 1.0, "network": 0.1}}
COSINE = {"name": "cosine", "final_factor": 0.01}


def progressive() -> str:
    """256 values first, the others one after the other; as many epochs as the recipe."""
    steps = [{"name": "class weights", "parts": ["head"], "train": {"epochs": 4}}]
    steps[0] |= {"loss": {"dims": [256]}}
    for dims in ([256], [192, 256], [128, 192, 256], [64, 128, 192, 256]):
        one = {"name": f"down to {dims[0]}", "train": {"epochs": 3}, "loss": {"dims": dims}}
        last = {"schedule": COSINE} if dims[0] == 64 else {}
        steps.append({**one, "optim": TENTH, **last})
    return phases(*steps)


def unfrozen(*first: str, second: tuple[str, ...] = ("network", "head")) -> str:
    """The last layer first, then everything at the rate of the class weights (report 002)."""
    return phases(
        {"name": "last layer", "parts": list(first), "train": {"epochs": 4}},
        {"name": "everything", "parts": list(second), "train": {"epochs": 8}},
    )


TRAINED = unfrozen("network.linear", "head")
UNTRAINED = unfrozen("network.linear", second=("network",))
GUARD = "guard={evaluations: 2, action: lower, factor: 0.01}"
PROTOCOL = ("protocol", str(SPEECH / "protocols" / "cm.dev.trl.txt"))
EXPERIMENTS = {
    "nested_fixes": Experiment(
        "speech_nested.yaml",
        TRIALS,
        {
            "all seven": (),
            "without 1: fixed weight 0.5": ("model.gate=fixed", "model.nested_weight=0.5"),
            "without 2: bilinear": ("model.alignment=bilinear", "model.fusion_alignment=bilinear"),
            "without 3: batch norm": ("model.norm=batch",),
            "without 4: no dropout": ("model.nested_dropout=0.0",),
            "without 5: batch 32": ("batch.size=32",),
            "without 6: rate, decay as before": (
                "optim.rate=5e-4",
                "optim.weight_decay=1e-4",
                "schedule.factor=0.95",
            ),
            "without 7: no clipping": ("train.clip_norm=0.0",),
            "none of them": (
                *("model.gate=fixed", "model.nested_weight=0.5", "model.norm=batch"),
                *("model.alignment=bilinear", "model.fusion_alignment=bilinear"),
                *("model.nested_dropout=0.0", "batch.size=32", "optim.rate=5e-4"),
                *("optim.weight_decay=1e-4", "schedule.factor=0.95", "train.clip_norm=0.0"),
            ),
        },
        common=("train.epochs=5", "evaluate.every_epochs=5", "data.crop_seconds=1.0"),
    ),
    "nested_baseline": Experiment(
        "speech_nested.yaml",
        TRIALS,
        {
            "nested_report004": (),
            "resnetse34l": (
                *("model.name=resnetse34l", "model.embedding_size=256", "model.pooling=asp"),
            ),
        },
        common=("evaluate.every_epochs=16",),
    ),
    "decoder": Experiment(
        "speech_nested.yaml",
        TRIALS,
        {
            "no reconstruction": (),
            "weight 0.1": ("model.reconstruct=true", "reconstruction.weight=0.1"),
            "weight 1": ("model.reconstruct=true", "reconstruction.weight=1.0"),
        },
        common=(
            *("model.name=lstm_autoencoder", "model.embedding_size=256"),
            *("train.epochs=20", "evaluate.every_epochs=20"),
        ),
    ),
    "aasist_start": Experiment(
        "speech_aasist_l.yaml",
        PROTOCOL,
        {
            "as published": (),
            "every layer Kaiming or Xavier, biases 0": (),
            "every layer normal, deviation 0.01": (),
        },
        common=("train.epochs=1", "data.crop_seconds=1.0", "evaluate.window.seconds=1.0"),
        start=aasist_start,
    ),
    "sizes": Experiment(
        "speech_ge2e_matryoshka.yaml",
        TEST,
        {
            "one size": ("loss.dims=[256]",),
            "simultaneous": (),
            "progressive": (progressive(),),
        },
        common=("evaluate.every_epochs=4",),
        start=published_ge2e,
    ),
    "stages": Experiment(
        "speech_ge2e_matryoshka.yaml",
        TEST,
        {
            "class weights trained, no guard": (TRAINED,),
            "class weights trained, guard": (TRAINED, GUARD),
            "class weights untrained, no guard": (UNTRAINED,),
            "class weights untrained, guard": (UNTRAINED, GUARD),
        },
        common=("loss.dims=[256]", "evaluate.every_epochs=1", "allow=[O1]"),
        start=published_ge2e,
    ),
    "stages_100_voices": Experiment(
        "speech_ge2e_matryoshka.yaml",
        TEST,
        {
            "class weights trained, no guard": (TRAINED,),
            "class weights trained, guard": (TRAINED, GUARD),
        },
        common=("loss.dims=[256]", "evaluate.every_epochs=1"),
        start=published_ge2e,
        lists=more_development_speakers,
    ),
}
PATHS = ("init=", "data.manifest=", "data.train.list_file=", "evaluate.trials=")


def run(
    name: str, experiment: Experiment, variant: str, seed: int, out: Path, more: list[str]
) -> dict[str, Any]:
    """Train (unless it was) and evaluate one variant."""
    folder = out / name / f"{list(experiment.variants).index(variant)}-seed{seed}"
    overrides = [*experiment.common, *experiment.variants[variant], f"seed={seed}", *more]
    overrides += experiment.lists(out.resolve() / name / "lists")
    path = ROOT / "recipes" / experiment.recipe
    began = time.monotonic()
    if not (folder / "finished.json").is_file():
        recipe = load_recipe(path, overrides)
        weights = experiment.start(variant, recipe, folder.with_name(folder.name + "-start"))
        if weights is not None:
            overrides.append(f"init={weights}")
        resume = (folder / "run.json").is_file()
        train_recipe(load_recipe(path, overrides), folder, resume=resume)
    finished = json.loads((folder / "finished.json").read_text())
    option, listed = experiment.evaluate
    checkpoint = folder / "checkpoints" / "latest"
    clips = open_clips(folder, None, None, None, None)
    done = evaluate_checkpoint(checkpoint, clips, conditions=(), **{option: Path(listed)})
    eer = done.result.to_dict()["metrics"]["eer"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "folder": folder.name,
        "run_id": finished["run_id"],
        "overrides": [word for word in overrides if not word.startswith(PATHS)],
        "steps": finished["steps"],
        "epochs": finished["epochs"],
        "train_seconds": finished["seconds"],
        "seconds": round(time.monotonic() - began, 1),
        "eer": eer["value"],
        "eer_95": [eer["low"], eer["high"]],
        "interval": eer["method"],
        "skipped_steps": sum(line.get("train/skipped_steps", 0) for line in lines),
        "largest_grad_norm": max(line.get("train/grad_norm", 0.0) for line in lines),
        "last_loss": [line["train/loss"] for line in lines if "train/loss" in line][-1],
        "development": [line["dev/eer"] for line in lines if "dev/eer" in line],
        "minus_best_95": [
            [line["dev/minus_best_low"], line["dev/minus_best_high"]]
            for line in lines
            if "dev/minus_best_low" in line
        ],
        "events": [
            f"step {line['step']}: {line['why']}; {line['done']}"
            for line in lines
            if "event" in line
        ],
        "evaluated": done,
    }


def voices_of(done: Evaluated) -> Voices:
    """Whose voices are in the trials of the list, from the manifest of the pack."""
    manifest = Manifest.read(SPEECH / "manifest.csv")
    if hasattr(done.data, "enrol"):
        speaker = dict(zip(manifest.column("path"), manifest.column("speaker"), strict=True))
        keys = [speaker[str(key)] for key in done.data.keys]
        sides = ([keys[i] for i in side] for side in (done.data.enrol, done.data.test))
        return trial_voices(done.positive, *sides)
    return clip_voices(done.positive, list(done.data.speaker))


def difference(first: Evaluated, done: Evaluated) -> Comparison:
    """EER of ``done`` minus that of ``first`` on the same trials, paired over speakers."""
    metrics = {"eer": EER_METRIC}
    scores = (first.scores, done.scores, done.positive)
    return compare(*scores, voices_of(done), metrics, draws=1000)["eer"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    logging.getLogger("glottis").setLevel(logging.WARNING)
    name, experiment = arguments.experiment, EXPERIMENTS[arguments.experiment]
    words = [name, f"--seeds {arguments.seeds}", *arguments.overrides]
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python benchmarks/ablations.py {' '.join(words)}",
        "machine": {"processor": processor(), "cores": os.cpu_count(), "gpu": None},
        "list": experiment.evaluate[1].split("/")[-1],
    }
    variants: dict[str, dict[str, Any]] = {variant: {} for variant in experiment.variants}
    for seed in map(int, arguments.seeds.split(",")):
        before: list[Evaluated] = []
        for variant in experiment.variants:
            row = run(name, experiment, variant, seed, arguments.out, arguments.overrides)
            done = row.pop("evaluated")
            pairs = {"minus_first": before[:1], "minus_the_one_before": before[-1:]}
            for key, others in pairs.items():
                for other in others:
                    found = difference(other, done)
                    row[key] = [found.difference, found.low, found.high]
            before.append(done)
            variants[variant][f"seed {seed}"] = row
    for rows in variants.values():
        rates = [row["eer"] for row in rows.values()]
        rows["mean eer"] = float(np.mean(rates))
        rows["range"] = [min(rates), max(rates)]
    print(json.dumps(result | {"variants": variants}, indent=1))


if __name__ == "__main__":
    main()
