"""What turns the training of the nested network into NaN: a failure that is switched on and off.

    GLOTTIS_SHARED=... python benchmarks/nested_nan.py [--steps 60] [--run runs/speech_nested]
        [--other runs/speech_resnetse34l]

Prints JSON with six experiments on clips of the speech pack:

head      the slope of the published margin formula and of ours, by arithmetic and cosine
training  five steps of the network from a fresh and from a collapsed start (all embeddings and
          classes on one line), by head and by loop; what was the first thing that was not finite
poison    one batch of infinities, then clean ones: what the network gives in eval mode
rate      steps at four learning rates: do embeddings of different speakers draw together
closeness cosines between speakers and with the classes, before and after a training
headroom  the largest activation of every kind of layer against the largest number of fp16

The published formula is written down here as users have it; docs/nested.md has the results.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis import audio
from glottis.losses import LOSSES, build_loss
from glottis.models import create_model, load_model
from glottis.rng import generator
from glottis.train.checkpoint import load_state

MARGIN, SCALE, SIZE, SPEAKERS, BATCH, SAMPLES = 0.2, 30.0, 256, 60, 16, 8000
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def published_aam(x: Tensor, centres: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """AAM-softmax as public trainers write it; cosines in ``dtype``, as under autocast."""
    unit, towards = functional.normalize(x), functional.normalize(centres)
    cosine = functional.linear(unit.to(dtype), towards.to(dtype))
    sine = torch.sqrt((1.0 - cosine * cosine).clamp(0, 1))
    phi = cosine * math.cos(MARGIN) - sine * math.sin(MARGIN)
    limit, cost = math.cos(math.pi - MARGIN), math.sin(math.pi - MARGIN) * MARGIN
    phi = torch.where(cosine - limit > 0, phi, cosine - cost)
    one_hot = torch.zeros_like(cosine).scatter_(1, labels[:, None], 1)
    logits = SCALE * (one_hot * phi + (1.0 - one_hot) * cosine)
    return functional.cross_entropy(logits.float(), labels)


def our_aam() -> Any:
    return build_loss(LOSSES.config("aam_softmax", margin=MARGIN, scale=SCALE), SIZE, SPEAKERS)


# ------------------------------------------------------------------------------ head


def head() -> dict[str, Any]:
    """The smallest distance from cosine 1 at which the gradient is still finite."""
    found: dict[str, Any] = {}
    for name, dtype in DTYPES.items():
        found[f"published, {name}"] = _slopes(lambda x, c, y, d=dtype: published_aam(x, c, y, d))

    def ours(x: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
        loss = build_loss(LOSSES.config("aam_softmax", margin=MARGIN, scale=SCALE), 2, 2)
        with torch.no_grad():
            loss.centres.copy_(centres)
        return loss(x, labels).loss

    found["ours"] = _slopes(ours)
    return found


def _slopes(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> dict[str, str]:
    result = {}
    for distance in (0.1, 1e-2, 2e-3, 1e-3, 1e-4, 1e-6, 0.0):
        angle = math.acos(1 - distance)
        for label, kind in ((0, "own class"), (1, "other class")):
            x = torch.tensor([[math.cos(angle), math.sin(angle)]], requires_grad=True)
            loss(x, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([label])).backward()
            norm = x.grad.norm().item()
            result[f"{kind}, cos = 1 - {distance:g}"] = f"{norm:.3g}" if norm == norm else "NaN"
    return result


# ------------------------------------------------------------------------------ training


class Clips:
    """Two clips of each of 60 speakers of the speech pack; batches of 0.5 s."""

    def __init__(self, root: Path) -> None:
        with (root / "manifest.csv").open() as file:
            rows = [r for r in csv.DictReader(file) if r["split"] == "train"]
        rows = [r for r in rows if r["label"] == "bonafide"]
        by_speaker: dict[str, list[str]] = {}
        for row in rows:
            by_speaker.setdefault(row["speaker"], []).append(row["path"])
        chosen = sorted(s for s, paths in by_speaker.items() if len(paths) > 1)[:SPEAKERS]
        paths = [(path, i) for i, s in enumerate(chosen) for path in by_speaker[s][:2]]
        self.clips = [audio.load(root / path, 16000).samples for path, _ in paths]
        self.labels = torch.tensor([label for _, label in paths])

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        rng = generator(0, "nested", step)
        chosen = rng.choice(len(self.clips), BATCH, replace=False)
        waves = [self._crop(self.clips[i], rng) for i in chosen]
        return torch.from_numpy(np.stack(waves)), self.labels[torch.from_numpy(chosen)]

    def _crop(self, clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.resize(np.roll(clip, -int(rng.integers(len(clip)))), SAMPLES)


def collapse(model: Any, centres: Tensor) -> None:
    """All embeddings and classes near one line: cosines of 0.9999."""
    with torch.no_grad():
        line = torch.ones(SIZE) / SIZE**0.5
        model.network.embedding.weight.mul_(1e-4)
        model.network.embedding.bias.copy_(line)
        noise = torch.randn(centres.shape, generator=torch.Generator().manual_seed(3))
        centres.copy_(line + 1e-4 * noise)


def train(clips: Clips, *, start: str, kind: str, checked: bool, steps: int = 5) -> dict[str, Any]:
    """Train; what was not finite first, and whether the network is usable afterwards."""
    model: Any = create_model("nested_original", seed=1, embedding_size=SIZE).train()
    torch.manual_seed(2)
    loss_head = our_aam()
    if start == "collapsed":
        collapse(model, loss_head.centres)
    learned = [*model.parameters(), *loss_head.parameters()]
    adam = torch.optim.Adam(learned, lr=5e-4, weight_decay=1e-4)
    first: str | None = None
    skipped = 0
    for step in range(steps):
        wave, labels = clips.batch(step)
        embedding = model(wave)
        if kind == "ours":
            loss = loss_head(embedding, labels).loss
        else:
            loss = published_aam(embedding, loss_head.centres, labels, DTYPES[kind])
        adam.zero_grad()
        loss.backward()
        if not torch.isfinite(loss):
            first = first or f"loss of step {step + 1}"
        norm = nn.utils.clip_grad_norm_(learned, 5.0)
        if not torch.isfinite(norm):
            first = first or f"gradient of step {step + 1}"
            if checked:
                skipped += 1
                continue
        adam.step()
    finite = all(torch.isfinite(p).all() for p in learned)
    result = {"first": first or "nothing", "skipped": skipped, "weights finite": bool(finite)}
    last = float(loss.detach())
    return result | {"last loss": round(last, 3) if math.isfinite(last) else str(last)}


def training(clips: Clips) -> dict[str, Any]:
    found = {}
    for start in ("fresh", "collapsed"):
        for kind in ("fp16", "bf16", "fp32", "ours"):
            named = f"{start} start, head {kind}" + ("" if kind == "ours" else " as published")
            found[named] = train(clips, start=start, kind=kind, checked=False)
    named = "collapsed start, head fp16 as published, bad steps skipped"
    found[named] = train(clips, start="collapsed", kind="fp16", checked=True)
    return found


# ------------------------------------------------------------------------------ poison


def poison(clips: Clips, steps: int = 10) -> dict[str, Any]:
    """One overflow, whose update is skipped as a loss scaler does; with and without its buffers."""
    found = {}
    for restored in (False, True):
        model: Any = create_model("nested_original", seed=1, embedding_size=SIZE).train()
        adam = torch.optim.Adam(model.parameters(), lr=5e-4)
        for step in range(steps):
            wave, _ = clips.batch(step)
            before = [b.clone() for b in model.buffers()]
            bad = step == 2
            hook = model.network.levels[1].register_forward_pre_hook(
                lambda module, inputs, bad=bad: (
                    (inputs[0] * float("inf"), *inputs[1:]) if bad else inputs
                )
            )
            loss = model(wave).square().mean()
            hook.remove()
            adam.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            if torch.isfinite(norm):
                adam.step()
            elif restored:
                for buffer, old in zip(model.buffers(), before, strict=True):
                    buffer.copy_(old)
        weights = all(torch.isfinite(p).all() for p in model.parameters())
        with torch.no_grad():
            heard = model.eval()(clips.batch(0)[0])
        usable = int(torch.isfinite(heard).all(dim=1).sum())
        found["statistics restored" if restored else "statistics kept"] = {
            "weights finite": bool(weights),
            "finite embeddings in eval": f"{usable} of {BATCH}",
        }
    return found


# ------------------------------------------------------------------------------ rate, headroom


def rate(clips: Clips, steps: int) -> dict[str, Any]:
    """Mean cosine of different speakers after some steps, by learning rate (fp32, our head)."""
    found = {}
    for value in (5e-4, 8e-4, 3e-3, 1e-2):
        model: Any = create_model("nested_original", seed=1, embedding_size=SIZE).train()
        torch.manual_seed(2)
        loss_head = our_aam()
        learned = [*model.parameters(), *loss_head.parameters()]
        adam = torch.optim.Adam(learned, lr=value, weight_decay=1e-4)
        largest = 0.0
        for step in range(steps):
            wave, labels = clips.batch(step)
            embedding = model(wave)
            loss = loss_head(embedding, labels).loss
            adam.zero_grad()
            loss.backward()
            largest = max(largest, nn.utils.clip_grad_norm_(learned, 5.0).item())
            adam.step()
        unit = functional.normalize(embedding.detach())
        others = (unit @ unit.T)[labels[:, None] != labels[None]]
        found[f"{value:g}"] = {
            "mean cosine of different speakers": round(others.mean().item(), 3),
            "largest": round(others.max().item(), 4),
            "loss": round(loss.item(), 3),
            "largest gradient norm": round(largest, 1),
        }
    return found


def closeness(clips: Clips, runs: list[str]) -> dict[str, Any]:
    """Cosines between embeddings of different speakers, and of embeddings with classes."""
    heard = [clips.batch(step) for step in range(4)]
    labels = torch.cat([batch[1] for batch in heard])
    found: dict[str, Any] = {}
    for name in ("nested_report004", "nested_original", "resnetse34l", *runs):
        centres = None
        if name in runs:
            folder = Path(name) / "checkpoints" / "latest"
            model: Any = load_model(folder)
            centres = load_state(folder, torch.device("cpu"))["head"]["centres"]
        else:
            model = create_model(name, seed=1, embedding_size=SIZE, pooling="asp").eval()
        with torch.no_grad():
            unit = functional.normalize(torch.cat([model(wave) for wave, _ in heard]))
        others = (unit @ unit.T)[labels[:, None] != labels[None]]
        row = {"mean": round(others.mean().item(), 3), "largest": round(others.max().item(), 4)}
        if centres is not None:
            with_classes = unit @ functional.normalize(centres).T
            row["largest with a class"] = round(with_classes.max().item(), 4)
        found[f"fresh {name}" if centres is None else Path(name).name] = row
    return found


def headroom(clips: Clips, run: str | None) -> dict[str, Any]:
    """Largest absolute output by kind of layer, and how many doublings fp16 leaves."""
    models: dict[str, Any] = {
        "fresh": create_model("nested_report004", seed=1, embedding_size=SIZE).eval()
    }
    if run is not None:
        models["trained"] = load_model(Path(run) / "checkpoints" / "best")
    found: dict[str, Any] = {}
    for name, model in models.items():
        largest: dict[str, float] = {}

        def note(module: nn.Module, _: Any, output: Any, seen: dict[str, float] = largest) -> None:
            kind = type(module).__name__
            if torch.is_tensor(output):
                seen[kind] = max(seen.get(kind, 0.0), output.abs().max().item())

        hooks = [m.register_forward_hook(note) for m in model.network.modules()]
        with torch.no_grad():
            for step in range(4):
                model(clips.batch(step)[0])
        for hook in hooks:
            hook.remove()
        limit = torch.finfo(torch.float16).max
        found[name] = {
            kind: {"largest": round(v, 2), "doublings left": round(math.log2(limit / v), 1)}
            for kind, v in sorted(largest.items())
            if v > 0
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--run", default=None, help="a trained nested network")
    parser.add_argument("--other", default=None, help="a trained network to compare it with")
    arguments = parser.parse_args()
    root = Path(os.environ.get("GLOTTIS_SHARED", "../shared")) / "speech"
    clips = Clips(root)
    result = {"torch": torch.__version__, "head": head(), "training": training(clips)}
    result["poison"] = poison(clips)
    result["rate"] = rate(clips, arguments.steps)
    runs = [run for run in (arguments.run, arguments.other) if run is not None]
    result["closeness"] = closeness(clips, runs)
    result["headroom"] = headroom(clips, arguments.run)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
