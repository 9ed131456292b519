"""Selection: the number that chooses checkpoints, on development data that training never sees.

Only `DevelopmentTrials` and `DevelopmentProtocol` get in here, their speakers (or, for spoofing,
their clips) are not in the training data, and rows that the manifest calls evaluation data are
refused (rule P6).  A closed-set loss exists for held-out clips of *training* speakers only; it is
logged and never selects.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from glottis.configfile import expand
from glottis.data import (
    CLASSES,
    DevelopmentProtocol,
    DevelopmentTrials,
    Manifest,
    check_trials,
    raise_stops,
    require_disjoint,
    require_protocol,
    require_trials,
)
from glottis.data.dataset import CropDataset
from glottis.data.findings import Finding
from glottis.data.loader import Loader, LoaderOptions
from glottis.data.sampler import FlatSampler
from glottis.data.source import ClipSource
from glottis.score import (
    Comparison,
    Embeddings,
    Extraction,
    Resampled,
    Result,
    clip_voices,
    compare,
    detect_clips,
    embed_clips,
    evaluate_speaker,
    evaluate_spoof,
    score_trials,
    trial_voices,
)
from glottis.score.metrics import EER_METRIC
from glottis.score.voices import Voices
from glottis.train import distributed
from glottis.train.corpus import Corpus, class_numbers, file_hash
from glottis.train.precision import Precision
from glottis.train.recipe import DataConfig, EvaluateConfig
from glottis.train.state import Evaluation, Evaluator
from glottis.train.task import Task

log = logging.getLogger(__name__)

EVALUATION_SPLITS = ("test", "eval", "evaluation")
LOGGED = ("eer", "min_dcf_0.01", "min_dcf_0.05", "min_dcf", "cllr")
DRAWS = 200  # bootstrap draws per evaluation in training; `glottis evaluate` takes more
COMPARED = 500  # draws of the difference to the best evaluation
SEEN_BATCH = 64


def make_evaluator(
    task: str,
    config: EvaluateConfig,
    data: DataConfig,
    corpus: Corpus,
    device: torch.device,
) -> Evaluator | None:
    """The evaluator that the recipe asks for; without a list (a warning) nothing selects."""
    trials, protocol, select = config.trials, config.protocol, config.select
    how = Extraction(
        window=config.window,
        batch_seconds=config.batch_seconds,
        device=device,
        readers=data.evaluation_workers,
    )
    if config.window is not None:
        log.info("evaluation hears %s", config.window.text())
    seen = None
    if corpus.dev_seen is not None:
        seen = SeenLoss(corpus, data, device)
    if trials is not None:
        return SpeakerSelection(expand(trials), corpus, how, seen, select)
    if protocol is not None:
        return SpoofSelection(expand(protocol), corpus, how, seen)
    log.warning(
        "evaluate.%s is not set: no error rate is measured and no checkpoint is the best",
        "trials" if task == "speaker" else "protocol",
    )
    return None if seen is None else SeenOnly(seen)


class SpeakerSelection:
    """EER and minDCF on development trials.  select: which of them chooses."""

    def __init__(
        self, path: Any, corpus: Corpus, how: Extraction, seen: SeenLoss | None, select: str = "eer"
    ) -> None:
        self.trials = self.data = DevelopmentTrials.read(path)
        require_trials(self.trials, corpus.manifest, allow=corpus.allow)
        for finding in check_trials(self.trials, corpus.manifest):
            if finding.severity == "warn":
                log.warning("%s: %s", finding, finding.why)
        rows = corpus.manifest.take(self.trials.rows(corpus.manifest))
        require_disjoint({"train": corpus.train, "dev": rows}, allow=corpus.allow)
        refuse_evaluation_rows(rows, self.trials.source, corpus.allow)
        corpus.hashes["selection"] = file_hash(path)
        self.source, self.how, self.seen = corpus.source(rows), how, seen
        self.speakers, self.select = rows.column("speaker"), select

    def __call__(self, task: Task) -> Evaluation:
        keys = [str(key) for key in self.trials.keys]
        matrix = shared_rows(
            len(keys),
            lambda mine: (
                embed_clips(
                    task.embedder, [keys[i] for i in mine], SomeClips(self.source, mine), self.how
                ).matrix
            ),
        )
        how, dims = Resampled(draws=DRAWS), task.embedder.dims
        embeddings = Embeddings(keys, matrix, {"dims": list(dims)})
        scores = score_trials(embeddings, self.trials)
        result = evaluate_speaker(scores, self.trials, self.speakers, how=how)
        found = _evaluation(result, self.trials.source, scores, self.select)
        if len(dims) > 1:
            found = self._with_sizes(found, embeddings, how)
        return _with_seen(found, self.seen, task)

    def _with_sizes(self, found: Evaluation, embeddings: Embeddings, how: Resampled) -> Evaluation:
        """Every size of a Matryoshka embedding; the whole one selects."""
        values, thresholds = dict(found.values), {}
        for size in embeddings.dims[:-1]:
            scores = score_trials(embeddings.dim(size), self.trials)
            one = evaluate_speaker(scores, self.trials, self.speakers, how=how)
            thresholds[str(size)] = one.thresholds["eer"]
            measured = _evaluation(one, self.trials.source, scores).values
            values |= {f"dev/{size}/{name[4:]}": value for name, value in measured.items()}
        whole = embeddings.dims[-1]  # measured already
        thresholds[str(whole)] = found.values["dev/threshold"]
        values |= {f"dev/{whole}/{name[4:]}": value for name, value in found.values.items()}
        if found.values["dev/eer"] > 0:
            for size in embeddings.dims:
                values[f"dev/{size}/ratio"] = values[f"dev/{size}/eer"] / found.values["dev/eer"]
        return replace(found, values=values, card={**found.card, "thresholds": thresholds})

    def compare(self, best: np.ndarray, now: np.ndarray) -> Comparison:
        trials, names = self.trials, self.speakers
        voices = trial_voices(trials.target, names[trials.enrol], names[trials.test])
        return _difference(best, now, trials.target, voices)


class SpoofSelection:
    """EER on a development protocol; it selects."""

    def __init__(self, path: Any, corpus: Corpus, how: Extraction, seen: SeenLoss | None) -> None:
        self.protocol = self.data = DevelopmentProtocol.read(path)
        require_protocol(self.protocol, corpus.manifest, allow=corpus.allow)
        rows = corpus.manifest.take(self.protocol.rows(corpus.manifest))
        # voices of synthesisers are in both on purpose: only the clips must be new
        require_disjoint(
            {"train": corpus.train, "dev": rows}, seen_speakers=("dev",), allow=corpus.allow
        )
        refuse_evaluation_rows(rows, self.protocol.source, corpus.allow)
        corpus.hashes["selection"] = file_hash(path)
        self.source, self.how, self.seen = corpus.source(rows), how, seen

    def __call__(self, task: Task) -> Evaluation:
        names = [str(name) for name in self.protocol.utterance]
        scores = shared_rows(
            len(names),
            lambda mine: detect_clips(
                task.embedder, [names[i] for i in mine], SomeClips(self.source, mine), self.how
            ),
        )
        result = evaluate_spoof(scores, self.protocol, how=Resampled(draws=DRAWS))
        return _with_seen(_evaluation(result, self.protocol.source, scores), self.seen, task)

    def compare(self, best: np.ndarray, now: np.ndarray) -> Comparison:
        protocol = self.protocol
        voices = clip_voices(protocol.bonafide, protocol.speaker)
        return _difference(best, now, protocol.bonafide, voices)


class SeenLoss:
    """Closed-set loss without augmentation: held-out clips of training classes, and their gap.

    The same loss on as many training clips, in eval mode too, is what it is compared with.
    """

    def __init__(self, corpus: Corpus, data: DataConfig, device: torch.device) -> None:
        assert corpus.dev_seen is not None
        count = min(len(corpus.dev_seen), len(corpus.train))
        even = np.linspace(0, len(corpus.train) - 1, count).round().astype(int)
        self.parts = {"held_out": corpus.dev_seen, "train": corpus.train.take(even)}
        self.corpus, self.device = corpus, device
        self.crop = round(data.crop_seconds * data.sample_rate)

    def __call__(self, task: Task) -> dict[str, float]:
        losses = {name: self._loss(task, rows) for name, rows in self.parts.items()}
        return {
            "dev_seen/loss": losses["held_out"],
            "dev_seen/train_loss": losses["train"],
            "dev_seen/gap": losses["held_out"] - losses["train"],
        }

    @torch.no_grad()
    def _loss(self, task: Task, rows: Manifest) -> float:
        column = "label" if task.label_map == CLASSES else "speaker"
        labels = class_numbers(rows, column, task.label_map)
        dataset = CropDataset(
            self.corpus.source(rows),
            labels,
            [str(u) for u in rows.column("utterance")],
            crop_samples=self.crop,
            short_clips="repeat",
            seed=0,
            num_classes=len(task.label_map),
        )
        sampler = FlatSampler(len(rows), SEEN_BATCH, seed=0, drop_last=False)
        loader = Loader(dataset, sampler, LoaderOptions(workers=0))
        task.eval()
        total = mass = 0.0
        precision = Precision("fp32", self.device)
        for batch in loader.batches(0, sampler.steps_per_epoch):
            (part,) = batch.to(self.device).split(1)
            loss = task.forward(part, precision).loss
            share = float(task.mass(part.labels))
            total, mass = total + float(loss) * share, mass + share
        return total / mass


class SeenOnly:
    """The loss on held-out clips where there is no list to select by."""

    def __init__(self, seen: SeenLoss) -> None:
        self.seen = seen

    def __call__(self, task: Task) -> Evaluation:
        return Evaluation(values=self.seen(task), selects=None, card={})

    def compare(self, best: np.ndarray, now: np.ndarray) -> Comparison:
        raise AssertionError("there are no scores without a list")


def refuse_evaluation_rows(rows: Manifest, source: str, allow: Sequence[str]) -> None:
    """Rows that the manifest itself calls evaluation data must not select (P6)."""
    splits = rows.column("split")
    bad = sorted({str(s) for s in splits if str(s).lower() in EVALUATION_SPLITS})
    if not bad:
        return
    finding = Finding(
        "P6",
        "stop",
        f"{source} holds clips of the split {', '.join(bad)}, and it would select checkpoints",
        "a number on data that chose the model is not a result",
        "select on development data; to do it anyway, allow: [P6] in the recipe",
    )
    raise_stops([finding], source, allow)


def _difference(
    best: np.ndarray, now: np.ndarray, positive: np.ndarray, voices: Voices
) -> Comparison:
    """Of the EER, paired over speakers; a positive difference is worse than the best."""
    return compare(best, now, positive, voices, {"eer": EER_METRIC}, draws=COMPARED)["eer"]


def _evaluation(result: Result, source: str, scores: np.ndarray, select: str = "eer") -> Evaluation:
    threshold = result.thresholds["eer"]
    values = {f"dev/{name}": value for name, value in result.points.items() if name in LOGGED}
    values["dev/threshold"] = threshold
    measured = result.metrics["eer"]
    if measured.low is not None and measured.high is not None:
        values |= {"dev/eer_low": measured.low, "dev/eer_high": measured.high}
    shown = measured.text(percent=True)
    if measured.value is None:
        shown = f"{100 * result.eer:.2f} % (too few voices for an interval)"
    counts = ", ".join(f"{number} {name}" for name, number in result.n.items())
    text = f"development EER {shown} on {source} ({counts})"
    card = {"eer": result.eer, "threshold": threshold, "list": source, "text": text}
    if select != "eer":
        card |= {"select": select, select: result.points[select]}
    return Evaluation(values=values, selects=result.points[select], card=card, scores=scores)


def _with_seen(result: Evaluation, seen: SeenLoss | None, task: Task) -> Evaluation:
    if seen is None:
        return result
    return replace(result, values=result.values | seen(task))


class SomeClips:
    """Some clips of a source, renumbered."""

    def __init__(self, source: ClipSource, clips: Sequence[int]) -> None:
        self.source, self.clips = source, clips
        self.sample_rate = source.sample_rate

    def num_samples(self, row: int) -> int:
        return self.source.num_samples(self.clips[row])

    def read(self, row: int, start: int, count: int) -> np.ndarray:
        return self.source.read(self.clips[row], start, count)


def shared_rows(count: int, compute: Callable[[list[int]], np.ndarray]) -> np.ndarray:
    """Rows 0 .. count of ``compute``, each process making its share and all having the whole."""
    world = distributed.world()
    shares = [list(range(rank, count, world)) for rank in range(world)]
    mine = shares[distributed.rank()]
    part = compute(mine) if mine else None
    if world == 1:
        assert part is not None
        return part
    parts: list[Any] = [None] * world
    dist.all_gather_object(parts, part)
    found = next(p for p in parts if p is not None)
    whole = np.empty((count, *found.shape[1:]), found.dtype)
    for rows, values in zip(shares, parts, strict=True):
        if rows:
            whole[rows] = values
    return whole
