"""From a recipe to a trainer: data, model, loss, optimiser, evaluator, run folder.

Everything that can be wrong is found here, before the first step: lists, labels, overlaps, shapes,
and settings that nothing reads.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from glottis.audio import Quarantine
from glottis.augment import Augmenter
from glottis.config import raise_unread, to_tree, unread
from glottis.errors import ConfigError
from glottis.losses import LOSSES
from glottis.models import SpeakerModel, SpoofModel, build_model, load_weights, plain_state
from glottis.rng import stream_key
from glottis.train import distributed
from glottis.train.adapters import add_adapters
from glottis.train.averaging import make_average
from glottis.train.components import make_augmenter, make_head
from glottis.train.corpus import Corpus, class_numbers, label_rows, open_corpus
from glottis.train.engine import Trainer
from glottis.train.evaluation import make_evaluator
from glottis.train.phases import ResolvedPhase
from glottis.train.recipe import Recipe, expand, resolve_phases, training_phases
from glottis.train.run import Run
from glottis.train.runtime import pick_device, prepare_network, set_switches
from glottis.train.stages import Stages
from glottis.train.task import Task
from glottis.train.terms import require_decoder
from glottis.train.trackers import make_trackers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What `assemble` made of a recipe.  shell: what is the same in all phases of the trainer.

    calibrates: name of the phase that only does that, at the end.
    """

    corpus: Corpus
    stages: Stages
    shell: dict[str, Any]
    calibrates: str | None = None

    @cached_property
    def trainer(self) -> Trainer:
        """That of the first phase."""
        return self.enter(0)

    def enter(self, number: int, before: Trainer | None = None) -> Trainer:
        """The trainer of a phase; see `Stages.enter`."""
        return self.stages.enter(number, self.shell, before)


def assemble(recipe: Recipe, out: Path, *, resume: bool = False) -> Outcome:
    """Build everything that a run needs; raises before anything is trained."""
    phases = resolve_phases(recipe)
    first = phases[0].recipe
    device = distributed.local_device(pick_device(recipe.runtime.device))
    distributed.start(device)
    set_switches(recipe.runtime, device)
    corpus = open_corpus(recipe.task, recipe.data, recipe.evaluate, recipe.allow)
    augmenter = make_augmenter(first, corpus, device)
    label_map, labels = label_rows(recipe.task, corpus, augmenter.label_copies if augmenter else 1)
    if corpus.dev_seen is not None:  # before the first evaluation meets a stranger
        class_numbers(
            corpus.dev_seen, "speaker" if recipe.task == "speaker" else "label", label_map
        )
    task = _task(first, label_map, augmenter, device)
    stages = Stages(phases, task, corpus, labels, device, out)
    average = make_average(recipe.average, task.embedder, [p.phase for p in stages.prepared])
    evaluator = make_evaluator(recipe.task, recipe.evaluate, recipe.data, corpus, device)
    for teacher in filter(None, (one.teacher for one in stages.prepared)):
        corpus.hashes[f"teacher {teacher.folder}"] = teacher.card["weights_sha256"]
    run = Run(out, recipe, corpus.hashes, resume=resume, primary=distributed.rank() == 0)
    trackers = make_trackers(out, recipe.log, run.run_id, to_tree(recipe), active=run.primary)
    quarantine = Quarantine(
        out / "quarantine.jsonl" if run.primary else None, recipe.data.broken_budget
    )
    shell = {
        **{"evaluator": evaluator, "run": run, "trackers": trackers, "quarantine": quarantine},
        "card": _card(recipe, run, corpus, augmenter),
        "average": average,
    }
    calibration = training_phases(recipe)[1]
    name = None if calibration is None else calibration.name
    outcome = Outcome(corpus, stages, shell, name)
    distributed.barrier()  # the folder is there, for all
    _ = outcome.trainer
    _require_all_read(recipe, phases)
    return outcome


def _require_all_read(recipe: Recipe, phases: Sequence[ResolvedPhase]) -> None:
    """Every setting of the recipe was read, by the run or by one of its phases."""
    trees = [recipe, *(one.recipe for one in phases if one.recipe is not recipe)]
    dead = set.intersection(*(set(unread(one)) for one in trees))
    raise_unread([key for key in unread(recipe) if key in dead or key.startswith("phases.")])


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
    fresh = _initialise(model, recipe)
    if recipe.adapters is not None:
        add_adapters(model, recipe.adapters, stream_key(recipe.seed, "adapters")[0] >> 1)
        now = (name for name, _ in model.named_parameters())
        fresh = frozenset(name for name in now if name.replace(".base_layer.", ".") in fresh)
    if distributed.world() > 1:
        distributed.share_batch_norms(model)
    prepare_network(model, recipe.runtime, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key)
        head: Any = make_head(recipe, model, len(label_map))
        head.to(device)
    model.dims = tuple(getattr(head, "dims", model.dims))
    task = Task(model, head, label_map, recipe.seed, augmenter)
    task.fresh = fresh
    return task


def _initialise(model: SpeakerModel | SpoofModel, recipe: Recipe) -> frozenset[str]:
    """Load the initial weights; names of what stays random."""
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
        published = [n for n, m in model.named_modules() if not getattr(m, "untrained", True)]
        names = (name for name, _ in model.named_parameters())
        return frozenset(n for n in names if not any(n.startswith(f"{p}.") for p in published))
    report = load_weights(model, plain_state(expand(source)), new=new)
    log.info("initial weights from %s: %s", source, report)
    return frozenset((*report.missing, *report.mismatched))


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
        "average": None if recipe.average is None else to_tree(recipe.average),
        "window": None if recipe.evaluate.window is None else to_tree(recipe.evaluate.window),
    }
