"""Phases of a training: the recipe again and again, each time with some keys changed.

    phases:
      - name: head only
        parts: [network.embedding.*, head.*]
        train: {epochs: 15}
        until_plateau: 3
      - name: everything
        optim: {part_rates: {"network.embedding.*": 1.0, "head.*": 1.0, "network.*": 0.1}}
        schedule: {name: cosine}
        train: {epochs: 50}

A section of a phase is merged over that of the recipe and checked as one.  What a run is (task,
model, front end, data, seed) is the same in all phases.
Names of parts are patterns over the names of parameters, ``network.*`` and ``head.*``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from glottis.config import Config
from glottis.configfile import merge
from glottis.errors import ConfigError
from glottis.rng import stream_key

if TYPE_CHECKING:
    from glottis.train.recipe import Recipe

Section = dict[str, Any]

ALTERNATIVES = {
    "train": (("epochs",), ("steps",)),
    "evaluate": (("every_epochs",), ("every_steps",)),
    "checkpoint": (("every_epochs",), ("every_steps",)),
    "batch": (("size", "balanced"), ("speakers", "utterances")),
}
"""keys of a section that exclude each other: giving one takes the other kind away"""

OF_THE_RUN = {
    "data": (
        *("root", "manifest", "store", "train", "sample_rate"),
        *("broken_budget", "cache_mb", "evaluation_workers"),
    ),
    "evaluate": ("trials", "protocol", "dev_seen", "window", "select", "batch_seconds"),
    "checkpoint": ("keep",),
}
"""keys of sections that are the same in all phases"""


class Ramp(Config):
    """A number that grows (or falls) over the first steps of a phase, then stays."""

    start: float
    """Value at the first step."""
    end: float
    """Value from the last step of the ramp on."""
    epochs: float = Field(gt=0)
    """Length of the ramp."""
    shape: Literal["linear", "exponential"] = "linear"
    """A straight line, or half of the way at a fifth of the time (1 - 0.001^t)."""

    def value(self, step: int, steps_per_epoch: int) -> float:
        """At the step after ``step`` steps of the phase."""
        share = min(1.0, step / max(1.0, self.epochs * steps_per_epoch))
        if self.shape == "exponential":
            share = (1.0 - 0.001**share) / (1.0 - 0.001)
        return self.start + (self.end - self.start) * share


class PhaseConfig(Config):
    """A phase: how long, what is trained, and what is different from the recipe."""

    name: str
    """What it is called in the plan, the log and the report."""
    parts: tuple[str, ...] = ("*",)
    """Parameters that are trained, as patterns: network.embedding.*, head.*; the others are frozen:
    in eval mode, without gradient, their buffers untouched."""
    until_plateau: int | None = Field(None, ge=1)
    """The phase ends early after that many evaluations that were not better than the best."""
    raises_rate: bool = False
    """Whether a part that was trained before may start with a higher rate than it ended with."""
    margin: Ramp | None = None
    """Margin of the loss over the phase, instead of the loss's own."""
    strength: Ramp | None = None
    """Factor on the probabilities of all augmentations over the phase."""
    data: Section = Field(default_factory=dict)
    """Changes of `data`: the crops and how clips are read."""
    batch: Section = Field(default_factory=dict)
    """Changes of `batch`."""
    loss: Section = Field(default_factory=dict)
    """Changes of `loss`; what keeps its name and shape keeps its weights."""
    augment: tuple[Section, ...] | None = None
    """Another list of augmentations."""
    distillation: Section | None = None
    """A teacher for this phase; of a recipe that has one, changes of it."""
    optim: Section = Field(default_factory=dict)
    """Changes of `optim`."""
    schedule: Section = Field(default_factory=dict)
    """Changes of `schedule`, which begins anew with the phase."""
    train: Section = Field(default_factory=dict)
    """Changes of `train`: length and numerics."""
    evaluate: Section = Field(default_factory=dict)
    """Changes of `evaluate`: interval and patience."""
    checkpoint: Section = Field(default_factory=dict)
    """Changes of `checkpoint`."""
    calibrate: bool = False
    """Nothing is trained: the scores of what came out become log-likelihood ratios.  Only of the
    last phase, which then has nothing else but its name."""


SECTIONS = (
    *("data", "batch", "loss", "augment", "distillation"),
    *("optim", "schedule", "train", "evaluate", "checkpoint"),
)
"""what a phase may change of a recipe"""


def phase_tree(base: Mapping[str, Any], config: PhaseConfig) -> dict[str, Any]:
    """The tree of a recipe with the sections of a phase merged over it."""
    changes = {key: getattr(config, key) for key in SECTIONS}
    overlay = {key: value for key, value in changes.items() if value not in (None, {})}
    for key, fixed in OF_THE_RUN.items():
        _refuse_fixed(config.name, key, overlay.get(key, {}), fixed)
    tree = dict(base)
    for key, kinds in ALTERNATIVES.items():
        given = overlay.get(key)
        if given and any(name in given for kind in kinds for name in kind):
            other = [name for kind in kinds if not set(kind) & given.keys() for name in kind]
            tree[key] = {name: value for name, value in tree[key].items() if name not in other}
    return merge(tree, overlay)


def _refuse_fixed(phase: str, section: str, given: Mapping[str, Any], fixed: Sequence[str]) -> None:
    wrong = [key for key in given if key in fixed]
    if wrong:
        raise ConfigError(
            f"phase '{phase}' changes {section}.{wrong[0]}",
            why="a run has one training set, one selection list and one folder: in a phase it "
            "would do nothing",
            fix=f"give it in '{section}' of the recipe, or start another run with init=",
        )


def split_phases(
    configs: Sequence[PhaseConfig], selects: bool
) -> tuple[Sequence[PhaseConfig], PhaseConfig | None]:
    """The phases that train, and the last one if it calibrates.

    selects: whether there is a development list.
    """
    calibrating = [config for config in configs if config.calibrate]
    if not calibrating:
        return configs, None
    last = configs[-1]
    if len(calibrating) > 1 or calibrating[0] is not last:
        raise ConfigError(
            f"phase '{calibrating[0].name}' calibrates, but other phases follow",
            why="what is trained after it has other scores",
            fix="move it to the end",
        )
    blank = PhaseConfig(name=last.name, calibrate=True)
    other = [k for k in PhaseConfig.__pydantic_fields__ if getattr(last, k) != getattr(blank, k)]
    if other:
        raise ConfigError(
            f"phase '{last.name}' calibrates and has {', '.join(other)}",
            why="nothing is trained in it, so that would do nothing",
            fix=f"write {{name: {last.name}, calibrate: true}}",
        )
    if not selects:
        raise ConfigError(
            f"phase '{last.name}' calibrates, but nothing selects",
            why="a calibration is learned on development data",
            fix="give evaluate.trials or evaluate.protocol",
        )
    return configs[:-1], last


@dataclass(frozen=True)
class ResolvedPhase:
    """A phase with the whole recipe that it trains with.  number: from 0."""

    number: int
    config: PhaseConfig
    recipe: Recipe

    @property
    def seed(self) -> int:
        """Of data order, crops and augmentation: the recipe's, and another in every later phase."""
        seed = self.recipe.seed
        return seed if self.number == 0 else stream_key(seed, "phase", self.number)[0] >> 1
