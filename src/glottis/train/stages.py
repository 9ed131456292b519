"""What a phase needs: data stream, trainable parts, loss, optimiser, schedule.

Every phase is prepared, and so checked, before the first step; entering one changes the task.  The
plan says what will happen: lengths, trainable parameters, rates, margins.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glottis.augment import Augmenter
from glottis.data.loader import Loader
from glottis.errors import ConfigError
from glottis.rng import stream_key
from glottis.train.adapters import PARTS
from glottis.train.components import (
    make_augmenter,
    make_guards,
    make_head,
    make_loader,
    make_phase,
)
from glottis.train.corpus import Corpus
from glottis.train.engine import Trainer
from glottis.train.optim import Optimiser
from glottis.train.parts import all_names, matches, named, rate_factors, require_patterns
from glottis.train.phases import PhaseConfig, ResolvedPhase
from glottis.train.precision import Precision
from glottis.train.recipe import Recipe
from glottis.train.schedule import Schedule
from glottis.train.state import Phase
from glottis.train.step import Pieces
from glottis.train.task import Task
from glottis.train.teacher import Teacher
from glottis.train.terms import Reconstruction, Term

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A phase, ready to be entered.

    head: its loss, often the very one of the phase before.  margin: of that loss, without a ramp.
    """

    resolved: ResolvedPhase
    phase: Phase
    loader: Loader
    augmenter: Augmenter | None
    head: Any
    margin: float | None
    schedule: Schedule
    teacher: Teacher | None

    @property
    def recipe(self) -> Recipe:
        return self.resolved.recipe


class Stages:
    """The phases of a run, one after the other.

    labels: (N,) class of each training row.  out: run folder, where teachers keep their outputs.
    """

    def __init__(
        self,
        phases: Sequence[ResolvedPhase],
        task: Task,
        corpus: Corpus,
        labels: np.ndarray,
        device: torch.device,
        out: Path,
    ) -> None:
        self.task, self.corpus, self.labels, self.device = task, corpus, labels, device
        self.out = out
        self._imitations: dict[Any, Term] = {}  # a teacher hears the clips once in a run
        self._last: dict[str, tuple[float, str]] = {}  # rate that each name learned at, and where
        self.copies = task.augmenter.label_copies if task.augmenter else 1
        self._fresh = {f"head.{name}" for name, _ in task.head.named_parameters()} | task.fresh
        self.prepared: list[Prepared] = []
        for resolved in phases:
            self.prepared.append(self._prepare(resolved))

    def __len__(self) -> int:
        return len(self.prepared)

    def _prepare(self, resolved: ResolvedPhase) -> Prepared:
        recipe, config = resolved.recipe, resolved.config
        before = self.prepared[-1] if self.prepared else None
        augmenter = self.task.augmenter
        if config.augment is not None:
            augmenter = make_augmenter(recipe, self.corpus, self.device)
            if (augmenter.label_copies if augmenter else 1) != self.copies:
                raise ConfigError(
                    f"phase '{config.name}' changes the number of classes (speed copies)",
                    why="the class weights of the phase before belong to other speakers",
                    fix="keep as_new_speakers as it is in all phases",
                )
        classes = len(self.task.label_map) // self.copies
        loader = make_loader(resolved, self.corpus, self.labels, classes, augmenter)
        head = self.task.head if before is None else before.head
        if before is not None and recipe.loss != before.recipe.loss:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(stream_key(recipe.seed, "head", resolved.number)[0] >> 1)
                made: Any = make_head(recipe, self.task.embedder, len(self.task.label_map))
                head = made.to(self.device)
        phase = make_phase(resolved, loader.steps_per_epoch)
        _check_ramps(config, phase, head, augmenter)
        schedule = Schedule(recipe.schedule, phase.steps, phase.steps_per_epoch)
        margin = getattr(head, "margin", None)  # no ramp has begun yet
        teacher = None
        if recipe.distillation is not None:
            fits = (self.task.embedder, head, list(self.task.label_map), augmenter)
            teacher = Teacher(recipe.distillation, *fits)
        prepared = Prepared(resolved, phase, loader, augmenter, head, margin, schedule, teacher)
        self._check_parts(prepared)
        self._check_fresh(prepared, before)
        return prepared

    def _check_parts(self, prepared: Prepared) -> None:
        rates, config = self.rates(prepared), prepared.resolved.config
        if not rates:
            raise ConfigError(f"nothing is trainable in phase '{config.name}'", rule="O1")
        if prepared.recipe.guard is not None and prepared.recipe.guard.action == "freeze":
            names = [name for name, _ in named(self.task.embedder, prepared.head)]
            require_patterns(
                self._earlier_parts(prepared.phase.number), names, "guard.action=freeze"
            )
        declared = config.raises_rate
        for name, (_, highest, ends) in rates.items():
            last, where = self._last.get(name, (highest, ""))
            if highest > last * (1 + 1e-6) and not declared:
                raise ConfigError(
                    f"phase '{config.name}' raises the learning rate of {name} to {highest:.2e}; "
                    f"'{where}' ends at {last:.2e}",
                    why="a rate that jumps up has destroyed what the phase before had learned",
                    fix="lower optim.rate or optim.part_rates; if it is meant, raises_rate: true",
                    rule="O16",
                )
            self._last[name] = ends, config.name

    def _check_fresh(self, prepared: Prepared, before: Prepared | None) -> None:
        """What is random must learn: frozen, it would be noise between the trained parts."""
        head, recipe = prepared.head, prepared.recipe
        if before is not None and head is not before.head:
            kept = {name: p.shape for name, p in before.head.named_parameters()}
            self._fresh = {name for name in self._fresh if not name.startswith("head.")}
            self._fresh |= {
                f"head.{n}" for n, p in head.named_parameters() if kept.get(n) != p.shape
            }
        learns = set(self.rates(prepared))
        stuck = sorted((self._fresh & self.task.may_learn(head)) - learns)
        self._fresh -= learns
        classes = [name for name in stuck if name.startswith("head.")]
        if classes:
            self._refuse_fresh(prepared, classes, "O1", "the loss")
        network = [name for name in stuck if not name.startswith("head.")]
        if network and recipe.init is not None:
            self._refuse_fresh(prepared, network, "O4", f"the network, which {recipe.init} lacks,")
        elif network:
            log.warning(
                "[O4] phase '%s' freezes %d random tensors of the network (%s ...): nothing has "
                "trained them. Give init, or let them learn",
                *(prepared.phase.name, len(network), network[0]),
            )

    def _refuse_fresh(self, prepared: Prepared, names: list[str], rule: str, where: str) -> None:
        sizes = {name: p.numel() for name, p in named(self.task.embedder, prepared.head)}
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        seen = (
            f"phase '{prepared.phase.name}' freezes {sum(sizes[n] for n in names):,} random values "
            f"of {where} that no phase has trained: {shown}"
        )
        if rule in self.corpus.allow:
            log.warning("[%s] %s", rule, seen)
            return
        raise ConfigError(
            seen,
            why="everything else would learn to live with noise that never changes",
            fix=f"let 'parts' of the phase name them too; to do it anyway, allow: [{rule}]",
            rule=rule,
        )

    def parts(self, prepared: Prepared) -> tuple[str, ...]:
        """Patterns of what learns in a phase: its ``parts``; with adapters, those and the loss."""
        own, recipe = prepared.resolved.config.parts, prepared.recipe
        if recipe.adapters is None:
            return own
        names = [name for name, _ in named(self.task.embedder, prepared.head)]
        always = (PARTS, "head.*", *recipe.new_parts)  # a loss may have no parameters
        found = [part for part in always if any(matches(name, [part]) for name in names)]
        return (*found, *(() if own == ("*",) else own))

    def rates(self, prepared: Prepared) -> dict[str, tuple[float, float, float]]:
        """(first, highest, last) learning rate of every parameter that learns in a phase."""
        config, head = prepared.recipe.optim, prepared.head
        parts = self.parts(prepared)
        names = [name for name, _ in named(self.task.embedder, head)]
        every = all_names(self.task.embedder, head)
        require_patterns(parts, every, f"phase '{prepared.resolved.config.name}': parts")
        factors = rate_factors(
            *(self.task.embedder, head, config.head_rate_factor),
            *(config.part_rates, config.layer_decay),
        )
        curve = prepared.schedule.curve() * config.rate
        ends = float(curve[0]), float(curve.max()), float(curve[-1])
        free = self.task.may_learn(head)
        return {
            name: (ends[0] * factors[name], ends[1] * factors[name], ends[2] * factors[name])
            for name in names
            if name in free and matches(name, parts)
        }

    def plan(self, number: int) -> str:
        """A phase in one line: length, what learns, rates, margin, batch."""
        prepared = self.prepared[number]
        phase, recipe, config = prepared.phase, prepared.recipe, prepared.resolved.config
        rates, head = self.rates(prepared), prepared.head
        sizes = {name: p.numel() for name, p in named(self.task.embedder, head)}
        inside = sum(size for name, size in sizes.items() if not name.startswith("head."))
        learns = {part: sum(size for name, size in sizes.items()
                  if name in rates and name.startswith("head.") == (part == "loss"))
                  for part in ("network", "loss")}  # fmt: skip
        spans: dict[tuple[str, float, float], None] = {}
        for name, (first, _, last) in rates.items():
            part = "loss" if name.startswith("head.") else "network"
            spans.setdefault((part, first, last), None)
        shown = ", ".join(
            f"{part} {first:.2e}" + (f" to {last:.2e}" if last != first else "")
            for part, first, last in spans
        )
        least = " at most" if config.until_plateau else ""
        words = [
            f"phase {phase.number + 1} of {len(self)}, '{phase.name}':{least} {phase.steps:,} "
            f"steps of {phase.steps_per_epoch:,} per epoch, batch "
            f"{prepared.loader.sampler.batch_size}, crops of {recipe.data.crop_seconds:g} s, "
            f"{recipe.train.precision}",
            f"{learns['network']:,} of {inside:,} parameters of the network learn "
            f"({100 * learns['network'] / max(1, inside):.1f} %), {learns['loss']:,} of the loss",
            f"rates: {shown}",
        ]
        if config.margin is not None:
            words.append(f"margin {config.margin.start:g} to {config.margin.end:g}")
        if config.strength is not None:
            words.append(f"augmentation {config.strength.start:g} to {config.strength.end:g}")
        return "; ".join(words)

    def enter(self, number: int, shell: Mapping[str, Any], before: Trainer | None) -> Trainer:
        """The trainer of phase ``number``; moments of parameters that go on are kept.

        shell: what is the same in all phases, fields of `Trainer`.  before: that of the phase
        before, None at the start and after a resume.
        """
        prepared = self.prepared[number]
        recipe, task = prepared.recipe, self.task
        if prepared.head is not task.head:
            new = task.replace_head(prepared.head)
            log.info("phase '%s': new in the loss: %s", prepared.phase.name, ", ".join(new))
        task.free(self.parts(prepared))
        task.augmenter, task.seed = prepared.augmenter, prepared.resolved.seed
        task.terms = self._terms(prepared)
        task.embedder.dims = tuple(getattr(task.head, "dims", (task.embedder.embedding_size,)))
        if prepared.margin is not None and hasattr(task.head, "set_margin"):
            task.head.set_margin(prepared.margin)  # a ramp of the phase before may have ended else
        task.distribute()
        optim = Optimiser(recipe.optim, task.embedder, task.head, prepared.schedule, self.device)
        precision = Precision(recipe.train.precision, self.device)
        if before is not None:
            optim.adopt(before.optim)
            if not prepared.resolved.config.raises_rate:
                optim.lowered = before.optim.lowered
            if before.precision.name == precision.name:
                precision = before.precision
        trainer = Trainer(
            **shell,
            refreeze=lambda made: self.refreeze(number, made),
            task=task,
            loader=prepared.loader,
            optim=optim,
            precision=precision,
            phase=prepared.phase,
            guards=make_guards(recipe, prepared.phase),
            phases=len(self),
            recipe=recipe,
            # a grouped loss chooses among the speakers of a batch
            num_classes=recipe.batch.speakers or len(task.label_map),
            pieces=Pieces(prepared.phase.accumulation),
        )
        return trainer

    def _terms(self, prepared: Prepared) -> list[Term]:
        """What a phase adds to its loss."""
        recipe, teacher = prepared.recipe, prepared.teacher
        terms: list[Term] = []
        if recipe.reconstruction is not None:
            terms.append(Reconstruction(recipe.reconstruction))
        if teacher is not None:
            if teacher.config not in self._imitations:
                made = teacher.imitation(self.corpus, self.out, self.device)
                self._imitations[teacher.config] = made
            terms.append(self._imitations[teacher.config])
        return terms

    def _earlier_parts(self, number: int) -> tuple[str, ...]:
        """Of the last phase before with something frozen, else the loss alone."""
        earlier = [self.parts(one) for one in self.prepared[:number]]
        return next((parts for parts in reversed(earlier) if parts != ("*",)), ("head.*",))

    def refreeze(self, number: int, trainer: Trainer) -> None:
        """Train only what the last phase with something frozen trained (else the loss alone)."""
        self.task.free(self._earlier_parts(number))
        self.task.distribute()
        prepared, before = self.prepared[number], trainer.optim
        trainer.optim = Optimiser(
            prepared.recipe.optim,
            self.task.embedder,
            self.task.head,
            prepared.schedule,
            self.device,
        )
        trainer.optim.applied.copy_(before.applied)
        trainer.optim.lowered = before.lowered
        trainer.brief()


def _check_ramps(config: PhaseConfig, phase: Phase, head: Any, augmenter: Augmenter | None) -> None:
    """A ramp needs what it moves, and stays between 0 and 1."""
    if config.margin is not None and not hasattr(head, "set_margin"):
        raise ConfigError(
            f"phase '{config.name}' has a margin ramp; its loss has no margin",
            fix="take a margin loss (aam_softmax ...), or remove 'margin'",
        )
    if config.strength is not None and augmenter is None:
        raise ConfigError(
            f"phase '{config.name}' has a strength ramp, but nothing is augmented",
            why="it would do nothing and say nothing",
            fix="remove 'strength', or add augmentations",
        )
    for key, ramp in (("margin", config.margin), ("strength", config.strength)):
        ends = [ramp.value(n, phase.steps_per_epoch) for n in (0, phase.steps)] if ramp else []
        if any(not 0 <= end <= 1 for end in ends):
            raise ConfigError(
                f"phase '{config.name}': {key} goes from {ends[0]:g} to {ends[1]:g}",
                fix="stay between 0 and 1",
            )
