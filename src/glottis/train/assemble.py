"""From a recipe to a trainer: data, model, loss, optimiser, evaluator, run folder.

Everything that can be wrong is found here, before the first step: lists, labels, overlaps, shapes,
and settings that nothing reads.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glottis.audio import Quarantine
from glottis.augment import AugmentContext, Augmenter, build_augmenter
from glottis.config import require_all_read, to_tree
from glottis.data.dataset import CropDataset
from glottis.data.loader import Loader, LoaderOptions
from glottis.data.sampler import BalancedSampler, FlatSampler, GroupedSampler, Sampler
from glottis.errors import ConfigError
from glottis.losses import LOSSES, build_loss
from glottis.models import MODELS, SpeakerModel, SpoofModel, build_model, load_weights
from glottis.rng import stream_key
from glottis.train import distributed
from glottis.train.checkpoint import read_weights
from glottis.train.corpus import Corpus, label_rows, open_corpus
from glottis.train.engine import Phase, Trainer
from glottis.train.evaluation import make_evaluator
from glottis.train.guards import ChanceGuard, DiskGuard, FiniteGuard, Guard, Watch
from glottis.train.optim import Optimiser
from glottis.train.precision import Precision
from glottis.train.recipe import BatchConfig, Recipe, expand
from glottis.train.run import Run
from glottis.train.runtime import automatic_workers, pick_device, prepare_network, set_switches
from glottis.train.schedule import Schedule
from glottis.train.task import Loss, Task
from glottis.train.teacher import Teacher
from glottis.train.terms import Reconstruction, require_decoder
from glottis.train.trackers import make_trackers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What `assemble` made of a recipe."""

    trainer: Trainer
    corpus: Corpus


def assemble(recipe: Recipe, out: Path, *, resume: bool = False) -> Outcome:
    """Build everything that a run needs; raises before anything is trained."""
    device = distributed.local_device(pick_device(recipe.runtime.device))
    distributed.start(device)
    set_switches(recipe.runtime, device)
    corpus = open_corpus(recipe.task, recipe.data, recipe.evaluate, recipe.allow)
    augmenter = _augmenter(recipe, corpus, device)
    copies = augmenter.label_copies if augmenter else 1
    label_map, labels = label_rows(recipe.task, corpus, copies)
    sampler = _sampler(recipe, labels)
    dataset = CropDataset(
        corpus.source(corpus.train),
        labels,
        list(corpus.train.column("utterance")),
        crop_samples=round(recipe.data.crop_seconds * recipe.data.sample_rate),
        short_clips=recipe.data.short_clips,
        seed=recipe.seed,
        num_classes=len(label_map) // copies,
        augmenter=augmenter,
        group=recipe.batch.utterances or 0,
    )
    loader = Loader(
        dataset,
        sampler,
        _loader_options(recipe),
        rank=distributed.rank(),
        world=distributed.world(),
    )
    task = _task(recipe, label_map, augmenter, device)
    teacher = _teacher(recipe, task)
    phase = _phase(recipe, loader.steps_per_epoch)
    schedule = Schedule(recipe.schedule, phase.steps, phase.steps_per_epoch)
    optim = Optimiser(recipe.optim, task.embedder, task.head, schedule, device)
    evaluator = make_evaluator(recipe.task, recipe.evaluate, recipe.data, corpus, device)
    guards = _guards(recipe, phase)
    if teacher is not None:
        corpus.hashes["teacher"] = teacher.card["weights_sha256"]
    run = Run(out, recipe, corpus.hashes, resume=resume, primary=distributed.rank() == 0)
    if recipe.reconstruction is not None:
        task.terms = [Reconstruction(recipe.reconstruction)]
    if teacher is not None:
        task.terms = [*task.terms, teacher.imitation(corpus, out, device)]
    trackers = make_trackers(out, recipe.log, run.run_id, to_tree(recipe), active=run.primary)
    quarantine = Quarantine(
        out / "quarantine.jsonl" if run.primary else None, recipe.data.broken_budget
    )
    trainer = Trainer(
        task=task,
        loader=loader,
        optim=optim,
        precision=Precision(recipe.train.precision, device),
        phase=phase,
        evaluator=evaluator,
        guards=guards,
        run=run,
        trackers=trackers,
        quarantine=quarantine,
        card=_card(recipe, run, corpus, augmenter),
    )
    require_all_read(recipe)
    # a grouped loss chooses among the speakers of a batch
    num_classes = recipe.batch.speakers or len(label_map)
    watch = Watch(out, task.head, num_classes, _checkpoint_bytes(task))
    distributed.barrier()  # the folder is there, for all
    for guard in guards:
        guard.before_run(watch)
    return Outcome(trainer, corpus)


def _augmenter(recipe: Recipe, corpus: Corpus, device: torch.device) -> Augmenter | None:
    if not recipe.augment:
        return None
    context = AugmentContext(recipe.data.sample_rate, corpus.root, recipe.seed)
    augmenter = build_augmenter(recipe.augment, context).to(device)
    augmenter.require_fit(
        task=recipe.task,
        grouped=recipe.batch.utterances is not None,
        features=MODELS.entry_of(recipe.model).target.input == "features",
    )
    return augmenter


def _sampler(recipe: Recipe, labels: np.ndarray) -> Sampler:
    batch: BatchConfig = recipe.batch
    size, speakers, utterances = batch.size, batch.speakers, batch.utterances
    balanced, drop_last = batch.balanced, recipe.data.drop_last
    if speakers is not None and utterances is not None:
        return GroupedSampler(labels, speakers, utterances, recipe.seed)
    assert size is not None
    if balanced:
        return BalancedSampler(labels, size, recipe.seed)
    rest = len(labels) % size
    if not drop_last and 0 < rest < distributed.world():
        raise ConfigError(
            f"the last batch of an epoch has {rest} clips for {distributed.world()} processes",
            why="every process needs something to compute",
            fix="set data.drop_last=true, or another batch.size",
        )
    return FlatSampler(len(labels), size, recipe.seed, drop_last=drop_last)


def _loader_options(recipe: Recipe) -> LoaderOptions:
    data = recipe.data
    workers = data.workers
    return LoaderOptions(
        workers=automatic_workers() if workers is None else workers,
        prefetch=data.prefetch,
        pin_memory=data.pin_memory,
        persistent_workers=data.persistent_workers,
        start_method=data.start_method,
    )


def _task(
    recipe: Recipe, label_map: list[str], augmenter: Augmenter | None, device: torch.device
) -> Task:
    key = stream_key(recipe.seed, "initialise")[0] >> 1
    last: Any = getattr(LOSSES.entry_of(recipe.loss).target, "classifier", "linear")
    model = build_model(recipe.model, recipe.features, seed=key, classifier=last)
    require_decoder(recipe.reconstruction, model.network)
    if model.sample_rate != recipe.data.sample_rate:
        raise ConfigError(
            f"the model works at {model.sample_rate} Hz, data.sample_rate is "
            f"{recipe.data.sample_rate}",
            fix="set features.sample_rate (or the model's) and data.sample_rate to one value",
            rule="P12",
        )
    if model.task != recipe.task:
        raise ConfigError(
            f"the model '{model.name}' is a {model.task} model; the recipe's task is "
            f"'{recipe.task}'",
            fix="change task or model.name",
        )
    _initialise(model, recipe)
    if distributed.world() > 1:
        distributed.share_batch_norms(model)
    prepare_network(model, recipe.runtime, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key)
        head: Any = _head(recipe, model, len(label_map))
        head.to(device)
    model.dims = tuple(getattr(head, "dims", model.dims))
    task = Task(model, head, label_map, recipe.seed, augmenter)
    task.distribute()
    return task


def _initialise(model: SpeakerModel | SpoofModel, recipe: Recipe) -> None:
    source, new = recipe.init, recipe.new_parts
    if source is None:
        if any(getattr(module, "awaits_weights", False) for module in model.modules()):
            raise ConfigError(
                "model.encoder.weights is 'stored', but there is no folder to read them from",
                why="'stored' is what a saved model says of itself; the network would stay random",
                fix="give a folder or a published name, or init=CHECKPOINT",
            )
        if any(getattr(module, "untrained", False) for module in model.modules()):
            log.warning(
                "the self-supervised network of %s starts at random weights: give a folder or a "
                "published name as model.encoder.weights",
                model.name,
            )
        return
    report = load_weights(model, read_weights(expand(source)), new=new)
    log.info("initial weights from %s: %s", source, report)


def _head(recipe: Recipe, model: SpeakerModel | SpoofModel, num_classes: int) -> Loss:
    entry = LOSSES.entry_of(recipe.loss)
    kind: Any = entry.target  # what a Matryoshka loss needs depends on the loss inside
    if kind.task != recipe.task:
        raise ConfigError(
            f"the loss '{entry.name}' is for the task '{kind.task}', not '{recipe.task}'",
            fix="see 'glottis losses'",
        )
    head: Loss = build_loss(recipe.loss, model.embedding_size, num_classes)
    grouped = recipe.batch.utterances is not None
    if (head.batch == "grouped") != grouped:
        raise ConfigError(
            f"the loss '{entry.name}' needs {head.batch} batches",
            fix="set batch.speakers and batch.utterances"
            if head.batch == "grouped"
            else "set batch.size",
            rule="O13",
        )
    if grouped and recipe.evaluate.dev_seen is not None:
        raise ConfigError(
            f"evaluate.dev_seen asks for a loss over classes; '{entry.name}' has none",
            why="it compares the speakers of one batch with each other",
            fix="leave evaluate.dev_seen out, or take a loss with classes",
        )
    return head


def _teacher(recipe: Recipe, task: Task) -> Teacher | None:
    config = recipe.distillation
    if config is None:
        return None
    return Teacher(config, task.embedder, task.head, list(task.label_map), task.augmenter)


def _phase(recipe: Recipe, steps_per_epoch: int) -> Phase:
    train = recipe.train
    epochs, fixed = train.epochs, train.steps
    steps = fixed if fixed is not None else (epochs or 0) * steps_per_epoch
    return Phase(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        accumulation=train.accumulation,
        clip_norm=train.clip_norm,
        log_every=recipe.log.every_steps,
        evaluate_every=recipe.evaluate.in_steps(steps_per_epoch, default_epochs=1),
        save_every=recipe.checkpoint.in_steps(steps_per_epoch, default_epochs=5),
        seed=recipe.seed,
        non_blocking=recipe.data.non_blocking,
        patience=recipe.evaluate.patience,
    )


def _guards(recipe: Recipe, phase: Phase) -> list[Guard]:
    return [
        FiniteGuard(recipe.train.skipped_budget),
        ChanceGuard(phase.steps_per_epoch),
        DiskGuard(),
    ]


def _card(recipe: Recipe, run: Run, corpus: Corpus, augmenter: Augmenter | None) -> dict[str, Any]:
    """What a checkpoint says about itself (and the report after it)."""
    return {
        "run_id": run.run_id,
        "description": recipe.description,
        "identity": run.identity,
        "resumes": run.resumes,
        "seed": recipe.seed,
        "data": corpus.summary(),
        "augment": augmenter.card() if augmenter else [],
        "window": None if recipe.evaluate.window is None else to_tree(recipe.evaluate.window),
    }


def _checkpoint_bytes(task: Task) -> int:
    """About what one checkpoint takes: weights and two moments."""
    return 3 * sum(p.numel() * p.element_size() for p in task.parameters()) + 2**20
