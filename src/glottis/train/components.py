"""Pieces of a phase, made from its recipe: augmentations, data stream, loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from glottis.augment import AugmentContext, Augmenter, build_augmenter
from glottis.data.dataset import CropDataset
from glottis.data.loader import Loader, LoaderOptions
from glottis.data.sampler import BalancedSampler, FlatSampler, GroupedSampler, Sampler
from glottis.errors import ConfigError
from glottis.losses import LOSSES, build_loss
from glottis.models import MODELS, SpeakerModel, SpoofModel
from glottis.train import distributed
from glottis.train.corpus import Corpus
from glottis.train.guards import (
    ChanceGuard,
    DiskGuard,
    FiniteGuard,
    FrozenGuard,
    Guard,
    StageGuard,
)
from glottis.train.phases import Ramp, ResolvedPhase
from glottis.train.recipe import BatchConfig, Recipe
from glottis.train.runtime import automatic_workers
from glottis.train.state import Phase
from glottis.train.task import Loss
from glottis.train.watchers import (
    EmbeddingWatcher,
    GradientWatcher,
    ResourceWatcher,
    ScaleWatcher,
    SelectionWatcher,
    ShareWatcher,
)


@dataclass(frozen=True)
class Strength:
    """Factor on augmentation by step (workers take it along)."""

    ramp: Ramp
    steps_per_epoch: int

    def __call__(self, step: int) -> float:
        return self.ramp.value(step, self.steps_per_epoch)


def make_augmenter(recipe: Recipe, corpus: Corpus, device: torch.device) -> Augmenter | None:
    """The augmentations of a recipe, checked against its task."""
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


def make_loader(
    resolved: ResolvedPhase,
    corpus: Corpus,
    labels: np.ndarray,
    num_classes: int,
    augmenter: Augmenter | None,
) -> Loader:
    """The stream of batches of a phase.  num_classes: K before speed copies."""
    recipe, config = resolved.recipe, resolved.config
    sampler = _sampler(recipe, labels, resolved.seed)
    dataset = CropDataset(
        corpus.source(corpus.train),
        labels,
        list(corpus.train.column("utterance")),
        crop_samples=round(recipe.data.crop_seconds * recipe.data.sample_rate),
        short_clips=recipe.data.short_clips,
        seed=resolved.seed,
        num_classes=num_classes,
        augmenter=augmenter,
        group=recipe.batch.utterances or 0,
        strength=None
        if config.strength is None
        else Strength(config.strength, sampler.steps_per_epoch),
    )
    data = recipe.data
    workers = data.workers
    options = LoaderOptions(
        workers=automatic_workers() if workers is None else workers,
        prefetch=data.prefetch,
        pin_memory=data.pin_memory,
        persistent_workers=data.persistent_workers,
        start_method=data.start_method,
    )
    return Loader(dataset, sampler, options, rank=distributed.rank(), world=distributed.world())


def _sampler(recipe: Recipe, labels: np.ndarray, seed: int) -> Sampler:
    batch: BatchConfig = recipe.batch
    size, speakers, utterances = batch.size, batch.speakers, batch.utterances
    balanced, drop_last = batch.balanced, recipe.data.drop_last
    if speakers is not None and utterances is not None:
        return GroupedSampler(labels, speakers, utterances, seed)
    assert size is not None
    if balanced:
        return BalancedSampler(labels, size, seed)
    rest = len(labels) % size
    if not drop_last and 0 < rest < distributed.world():
        raise ConfigError(
            f"the last batch of an epoch has {rest} clips for {distributed.world()} processes",
            why="every process needs something to compute",
            fix="set data.drop_last=true, or another batch.size",
        )
    return FlatSampler(len(labels), size, seed, drop_last=drop_last)


def make_head(recipe: Recipe, model: SpeakerModel | SpoofModel, num_classes: int) -> Loss:
    """The loss of a recipe for this model."""
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


def make_phase(resolved: ResolvedPhase, steps_per_epoch: int) -> Phase:
    """Lengths and intervals, in steps."""
    recipe, config = resolved.recipe, resolved.config
    train = recipe.train
    epochs, fixed = train.epochs, train.steps
    return Phase(
        steps=fixed if fixed is not None else (epochs or 0) * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        accumulation=train.accumulation,
        clip_norm=train.clip_norm,
        log_every=recipe.log.every_steps,
        evaluate_every=recipe.evaluate.in_steps(steps_per_epoch, default_epochs=1),
        save_every=recipe.checkpoint.in_steps(steps_per_epoch, default_epochs=5),
        seed=recipe.seed,
        non_blocking=recipe.data.non_blocking,
        patience=recipe.evaluate.patience,
        name=config.name,
        number=resolved.number,
        until_plateau=config.until_plateau,
        margin=config.margin,
        strength=config.strength,
    )


def make_guards(recipe: Recipe, phase: Phase) -> list[Guard]:
    """The guards of a phase."""
    guards: list[Guard] = [
        FiniteGuard(recipe.train.skipped_budget, recipe.nonfinite),
        ChanceGuard(phase.steps_per_epoch),
        FrozenGuard(),
        DiskGuard(),
        GradientWatcher(phase.steps_per_epoch),
        ScaleWatcher(),
        EmbeddingWatcher(),
        ShareWatcher(),
        SelectionWatcher(),
        ResourceWatcher(phase.steps_per_epoch),
    ]
    stage = recipe.guard
    return guards if stage is None else [*guards, StageGuard(stage)]
