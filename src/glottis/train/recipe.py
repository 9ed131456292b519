"""The recipe: everything that defines a run, in one typed, documented file.

Fields marked as speed only may differ when a run is resumed; everything else makes another run.
Paths may begin with ``${NAME}`` or ``${NAME:-default}``, the only use of the environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from glottis.augment import AUGMENTATIONS
from glottis.config import Choice, Config, SpeedOnly, build, to_tree
from glottis.configfile import apply_overrides, expand, read_tree
from glottis.errors import ConfigError
from glottis.features import FEATURES
from glottis.losses import LOSSES
from glottis.models import MODELS, Window
from glottis.train.adapters import AdaptersConfig
from glottis.train.averaging import AverageConfig
from glottis.train.foreign import hint
from glottis.train.guards import NonFiniteConfig, StageGuardConfig
from glottis.train.optim import OptimConfig
from glottis.train.phases import PhaseConfig, ResolvedPhase, phase_tree, split_phases
from glottis.train.schedule import ConstantConfig, ScheduleConfig
from glottis.train.terms import DistillationConfig, ReconstructionConfig


class Selection(Config):
    """Which rows of the manifest."""

    split: str | None = None
    """Value of the manifest's column ``split``; leave it out for any."""
    label: Literal["bonafide", "spoof"] | None = None
    """Only bona fide or only spoofed clips; leave it out for any."""
    list_file: str | None = None
    """A file that names the rows: ``speaker path`` lines or an ASVspoof protocol."""


class DataConfig(Config):
    """The training data, and how it reaches the step."""

    root: str = "."
    """Folder that the paths of the manifest are relative to."""
    manifest: str
    """CSV or Parquet table of the clips."""
    store: str | None = None
    """Packed store of the clips (``glottis pack``); without it the files are decoded."""
    train: Selection = Selection(split="train")
    """Rows to train on."""
    sample_rate: int = Field(16000, ge=8000, le=48000)
    """Everything is resampled to this rate."""
    crop_seconds: float = Field(2.0, gt=0.05)
    """Length of the training crops."""
    short_clips: Literal["repeat", "zero"] = "repeat"
    """Clips shorter than the crop: repeated from a random offset, or padded with zeros."""
    broken_budget: int = Field(20, ge=0)
    """Broken files that are quarantined before the run stops."""
    drop_last: bool = True
    """Leave out the incomplete batch at the end of an epoch."""
    cache_mb: Annotated[float, SpeedOnly] = Field(0.0, ge=0)
    """Memory for decoded clips, per worker (without a store)."""
    workers: Annotated[int | None, SpeedOnly] = Field(None, ge=0)
    """Worker processes that make training batches; 0 = in the main process.  Leave it out for one
    per core that this process may use, four at most."""
    evaluation_workers: Annotated[int, SpeedOnly] = Field(0, ge=0)
    """Threads that read clips ahead of the network during evaluation; 0 = none."""
    prefetch: Annotated[int, SpeedOnly] = Field(4, ge=1)
    """Batches that each worker keeps ready."""
    pin_memory: Annotated[bool, SpeedOnly] = True
    """Page-locked batches for faster copies to a GPU."""
    persistent_workers: Annotated[bool, SpeedOnly] = True
    """Keep the workers from epoch to epoch."""
    non_blocking: Annotated[bool, SpeedOnly] = True
    """Copy batches to the device while it computes."""
    start_method: Annotated[Literal["default", "fork", "spawn", "forkserver"], SpeedOnly] = (
        "default"
    )
    """How workers start; ``default`` is the platform's."""


class BatchConfig(Config):
    """Flat batches (``size``) or P speakers x K utterances."""

    size: int | None = Field(None, ge=1)
    """Clips per batch, over all processes."""
    speakers: int | None = Field(None, ge=2)
    """P: different speakers per batch."""
    utterances: int | None = Field(None, ge=2)
    """K: clips of each speaker."""
    balanced: bool = False
    """Draw every class equally often (flat batches)."""

    @model_validator(mode="after")
    def _one_kind(self) -> BatchConfig:
        values = self.__dict__
        grouped = values["speakers"] is not None or values["utterances"] is not None
        complete = values["speakers"] is not None and values["utterances"] is not None
        if (values["size"] is None) != grouped or grouped != complete:
            raise ValueError("give either 'size', or both 'speakers' and 'utterances'")
        if grouped and values["balanced"]:
            raise ValueError("'balanced' is for flat batches; grouped ones are balanced already")
        return self


class TrainConfig(Config):
    """Length and numerics of the training."""

    epochs: int | None = Field(None, ge=1)
    """Length in passes over the training data; or give ``steps``."""
    steps: int | None = Field(None, ge=1)
    """Length in optimiser steps."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the network; front ends, losses and weights stay in fp32."""
    accumulation: int = Field(1, ge=1)
    """Pieces that a batch is computed in; the gradient is that of the whole batch."""
    clip_norm: float = Field(5.0, ge=0)
    """Largest gradient norm; larger gradients are scaled down.  0 = off."""
    skipped_budget: int = Field(3, ge=0)
    """Steps that are not finite and are skipped in any 1,000 before ``nonfinite`` acts."""

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.__dict__["epochs"] is None) == (self.__dict__["steps"] is None):
            raise ValueError("give either 'epochs' or 'steps'")
        return self


class Interval(Config):
    """Every so many epochs, or every so many steps."""

    every_epochs: int | None = Field(None, ge=1)
    """Interval in epochs."""
    every_steps: int | None = Field(None, ge=1)
    """Interval in optimiser steps."""

    @model_validator(mode="after")
    def _one_unit(self) -> Interval:
        if self.__dict__["every_epochs"] is not None and self.__dict__["every_steps"] is not None:
            raise ValueError("give 'every_epochs' or 'every_steps', not both")
        return self

    def in_steps(self, steps_per_epoch: int, default_epochs: int) -> int:
        """The interval in steps."""
        epochs, steps = self.every_epochs, self.every_steps
        return steps if steps is not None else (epochs or default_epochs) * steps_per_epoch


class EvaluateConfig(Interval):
    """Selection during training: EER on development trials of speakers not in training."""

    trials: str | None = None
    """Development trial list (speaker verification)."""
    protocol: str | None = None
    """Development protocol (spoofing)."""
    dev_seen: Selection | None = None
    """Held-out clips of *training* speakers: their loss is logged, never used for selection."""
    select: Literal["eer", "min_dcf_0.01", "min_dcf_0.05"] = "eer"
    """What chooses the best checkpoint and counts for patience and plateau; the costs are for
    speaker verification."""
    window: Window | None = None
    """Part of each clip that the model hears; leave it out for the model's own."""
    patience: int | None = Field(None, ge=1)
    """Evaluations without a better result after which the run ends; leave it out to go on."""
    batch_seconds: Annotated[float, SpeedOnly] = Field(120.0, gt=0)
    """Seconds of audio that go through the network at once."""


class CheckpointConfig(Interval):
    """Checkpoints; one is also written at each evaluation and at the end."""

    keep: Annotated[int, SpeedOnly] = Field(3, ge=1)
    """How many to keep besides the best."""


class RuntimeConfig(Config):
    """The machine."""

    device: Annotated[str, SpeedOnly] = "auto"
    """``auto`` (cuda, mps, cpu), or a device such as ``cuda:1``."""
    deterministic: bool = False
    """Bit-identical repeats also on a GPU; CPU runs always repeat."""
    compile: Annotated[bool, SpeedOnly] = False
    """torch.compile for the network."""
    channels_last: Annotated[bool, SpeedOnly] = False
    """Channels-last weights and maps: often faster for convolutions."""
    tf32: Annotated[bool, SpeedOnly] = True
    """TF32 matrix products on GPUs that have them."""
    cudnn_benchmark: Annotated[bool, SpeedOnly] = True
    """Let cuDNN try its algorithms for the (fixed) training shapes."""
    activation_checkpointing: Annotated[bool, SpeedOnly] = False
    """Recompute the heavy blocks in the backward pass to save memory."""
    threads: Annotated[int | None, SpeedOnly] = Field(None, ge=1)
    """CPU threads of the main process; leave it out for torch's choice."""


class LogConfig(Config):
    """What is written, and how often."""

    every_steps: Annotated[int, SpeedOnly] = Field(20, ge=1)
    """Steps between two lines of metrics (the only times the loop reads the device)."""
    tensorboard: Annotated[bool, SpeedOnly] = False
    """Write TensorBoard files too (extra ``track``)."""
    wandb_project: Annotated[str | None, SpeedOnly] = None
    """Send metrics to this Weights & Biases project (extra ``track``)."""
    wandb_tags: Annotated[tuple[str, ...], SpeedOnly] = ()
    """Tags of the run there."""
    wandb_mode: Annotated[Literal["auto", "online", "offline"], SpeedOnly] = "auto"
    """``auto``: online if the service answers, else offline."""


class Recipe(Config):
    """One run: data, model, loss, optimisation, evaluation."""

    description: Annotated[str, SpeedOnly] = ""
    """What this run is for."""
    task: Literal["speaker", "spoof"]
    """Speaker verification or spoofing countermeasure."""
    seed: int = Field(10, ge=0)
    """Everything random is a function of it."""
    init: str | None = None
    """Weights to start from: a checkpoint folder or a weight file."""
    new_parts: tuple[str, ...] = ()
    """Parts that ``init`` need not hold: prefixes of parameter names."""
    allow: tuple[str, ...] = ()
    """Codes of rules that this run breaks on purpose, such as P6; they are logged."""
    data: DataConfig
    """The training data."""
    batch: BatchConfig
    """What a batch is."""
    features: Annotated[Config | None, Choice(FEATURES)] = None
    """Front end; leave it out for the model's own."""
    model: Annotated[Config, Choice(MODELS)]
    """The network."""
    adapters: AdaptersConfig | None = None
    """Small trained matrices beside frozen layers of the network; leave it out for none."""
    loss: Annotated[Config, Choice(LOSSES)]
    """The loss head."""
    reconstruction: ReconstructionConfig | None = None
    """What a decoder adds to the loss (``lstm_autoencoder``)."""
    distillation: DistillationConfig | None = None
    """What a teacher adds to the loss."""
    augment: Annotated[tuple[Config, ...], Choice(AUGMENTATIONS)] = ()
    """Augmentations, in the order in which they are applied."""
    optim: OptimConfig
    """The optimiser."""
    schedule: ScheduleConfig = ConstantConfig()
    """The learning rate over the run."""
    train: TrainConfig
    """Length and numerics; of every phase that says nothing else."""
    phases: tuple[PhaseConfig, ...] = ()
    """The recipe several times, each time with some keys changed; leave it out for one phase."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Selection."""
    guard: StageGuardConfig | None = None
    """What to do when evaluations are worse than the best beyond doubt; leave it out to go on."""
    nonfinite: NonFiniteConfig = NonFiniteConfig()
    """What to do when more steps are not finite than ``train.skipped_budget`` allows."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Checkpoints."""
    average: AverageConfig | None = None
    """Averages of the weights; leave it out for none."""
    runtime: RuntimeConfig = RuntimeConfig()
    """The machine."""
    log: LogConfig = LogConfig()
    """What is written."""

    @model_validator(mode="after")
    def _lists_fit_the_task(self) -> Recipe:
        evaluate, task = self.__dict__["evaluate"].__dict__, self.__dict__["task"]
        other = {"speaker": "protocol", "spoof": "trials"}[task]
        if evaluate[other] is not None:
            raise ValueError(f"evaluate.{other} does not belong to the task '{task}'")
        waits = {
            "evaluate.patience": evaluate["patience"],
            "guard": self.__dict__["guard"],
            "until_plateau of a phase": any(
                one.__dict__["until_plateau"] for one in self.__dict__["phases"]
            ),
        }
        for key in (key for key, value in waits.items() if value):
            if not (evaluate["trials"] or evaluate["protocol"]):
                raise ValueError(f"{key} waits for evaluations, but nothing selects")
        select = evaluate["select"]
        if select != "eer" and task == "spoof":
            raise ValueError(
                f"evaluate.select is {select}, a cost of speaker verification; spoofing is "
                "selected by the eer"
            )
        if select != "eer" and not evaluate["trials"]:
            raise ValueError(f"evaluate.select is {select}, but there are no evaluate.trials")
        return self

    @model_validator(mode="after")
    def _average_is_possible(self) -> Recipe:
        if self.__dict__["average"] is None or self.__dict__["average"].__dict__["kind"] == "ema":
            return self
        average, evaluate = self.__dict__["average"].__dict__, self.__dict__["evaluate"].__dict__
        if not (evaluate["trials"] or evaluate["protocol"]):
            raise ValueError(
                f"average.kind is {average['kind']}, but nothing selects: no development number "
                "would say whether the average is better"
            )
        keep = self.__dict__["checkpoint"].__dict__["keep"]
        if average["kind"] == "last" and keep < average["count"]:
            raise ValueError(
                f"average.count is {average['count']}, but checkpoint.keep is {keep}: raise keep, "
                "or lower count"
            )
        return self


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """The recipe in a file, with ``key=value`` overrides."""
    tree = apply_overrides(read_tree(path), overrides or [])
    recipe = build(Recipe, tree, str(path), hint)
    resolve_phases(recipe, str(path))  # every phase is checked, not only the first
    return recipe


def training_phases(recipe: Recipe) -> tuple[Sequence[PhaseConfig], PhaseConfig | None]:
    """The phases that train, and the one that calibrates after them."""
    evaluate = recipe.evaluate.__dict__  # looking is not reading
    return split_phases(recipe.phases, bool(evaluate["trials"] or evaluate["protocol"]))


def resolve_phases(recipe: Recipe, source: str = "") -> tuple[ResolvedPhase, ...]:
    """The phases of a recipe, each with the whole recipe it trains with; at least one."""
    configs, _ = training_phases(recipe)
    if not configs:
        return (ResolvedPhase(0, PhaseConfig(name="training"), recipe),)
    names = [config.name for config in recipe.phases]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"two phases have one name: {', '.join(names)}", fix="give each its own name"
        )
    base = to_tree(recipe)
    base.pop("phases")
    found = []
    for number, config in enumerate(configs):
        tree = phase_tree(base, config)
        whole = build(Recipe, tree, f"{source}, phase '{config.name}'".lstrip(", "), hint)
        found.append(ResolvedPhase(number, config, whole))
    return tuple(found)


__all__ = ["Recipe", "expand", "load_recipe", "resolve_phases", "training_phases"]
