"""Averages of weights: along the training, or of the checkpoints that it leaves.

    ema    exponential moving average; it is what is evaluated and saved
    last   mean of the last checkpoints, made at the end
    best   mean of the best checkpoints, made at the end

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; Izmailov et al.,
"Averaging weights leads to wider optima and better generalization", UAI 2018.

Only the network is averaged, its float buffers (batch-norm statistics) included; the loss is not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from glottis.config import Config, OnlyWith
from glottis.errors import ConfigError
from glottis.train.checkpoint import CheckpointFolder

if TYPE_CHECKING:
    from glottis.train.state import Phase

log = logging.getLogger(__name__)

Update = Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]

_EMA = OnlyWith("kind: ema", lambda values: values["kind"] == "ema")
_MEAN = OnlyWith("kind: last or best", lambda values: values["kind"] != "ema")


class AverageConfig(Config):
    """An average of the weights, beside or instead of those of the last step."""

    kind: Literal["ema", "last", "best"]
    """A moving average over the steps, or at the end the mean of the last or best checkpoints."""
    decay: Annotated[float, _EMA] = Field(0.999, gt=0, lt=1)
    """Share that stays at each step (``ema``): 0.999 is an average over about 1,000 steps."""
    count: Annotated[int, _MEAN] = Field(3, ge=2)
    """How many checkpoints (``last``, ``best``)."""
    refresh_batches: Annotated[int, _MEAN] = Field(100, ge=1)
    """Training batches from which the batch norms gather the statistics of the mean anew."""


class Averaging:
    """No average: what the loop calls, and nothing happens.

    steps: checkpoints that are averaged at the end, and must stay until then.
    """

    def __init__(self) -> None:
        self.steps: tuple[int, ...] = ()

    def after_step(self, network: nn.Module, applied: Tensor) -> None:
        """applied: a device tensor, false for a step that was skipped."""

    def after_eval(self, step: int, selects: float | None) -> None:
        """selects: the number that chooses, lower is better."""

    def before_save(self, step: int) -> None:
        """Of a checkpoint at its interval, not of one at a signal."""

    @contextmanager
    def shown(self, network: nn.Module) -> Iterator[None]:
        """Inside, the network has the weights that are evaluated and saved."""
        yield

    def state_dict(self, network: nn.Module) -> dict[str, Any]:
        """What a checkpoint holds of it, beside the network that was shown."""
        return {}

    def restore(self, network: nn.Module, saved: Mapping[str, Any], run: CheckpointFolder) -> None:
        """Go on from a checkpoint; the network holds what it showed."""

    def forget(self) -> None:
        """What follows is not to be averaged with what was before."""

    def roll_back(self, network: nn.Module, saved: Mapping[str, Any], step: int) -> None:
        """As `restore`, in the middle of a run: what step ``step`` was is taken back."""


class MovingAverage(Averaging):
    """Exponential moving average of the network."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self._applied: Tensor | None = None
        update = float_only(get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]

        def masked(old: Sequence[Tensor], new: Sequence[Tensor], count: Any) -> None:
            # a skipped step changes nothing, and nobody waits for the device to know it
            assert self._applied is not None
            update(
                old,
                [torch.where(self._applied, b, a) for a, b in zip(old, new, strict=True)],
                count,
            )

        self.model = AveragedModel(network, multi_avg_fn=masked, use_buffers=True)

    def after_step(self, network: nn.Module, applied: Tensor) -> None:
        self._applied = applied
        self.model.update_parameters(network)

    @contextmanager
    def shown(self, network: nn.Module) -> Iterator[None]:
        self._exchange(network)
        try:
            yield
        finally:
            self._exchange(network)

    @torch.no_grad()
    def _exchange(self, network: nn.Module) -> None:
        """In place: optimiser, replicas and compiled code keep their tensors."""
        for ours, theirs in zip(_tensors(self.model.module), _tensors(network), strict=True):
            kept = ours.clone()
            ours.copy_(theirs)
            theirs.copy_(kept)

    def state_dict(self, network: nn.Module) -> dict[str, Any]:
        raw = {name: value.detach().clone() for name, value in network.state_dict().items()}
        return {"network": raw, "averaged_steps": int(self.model.n_averaged)}

    def restore(self, network: nn.Module, saved: Mapping[str, Any], run: CheckpointFolder) -> None:
        self._take(network, saved)

    def roll_back(self, network: nn.Module, saved: Mapping[str, Any], step: int) -> None:
        self._take(network, saved)

    def _take(self, network: nn.Module, saved: Mapping[str, Any]) -> None:
        self.model.module.load_state_dict(network.state_dict())
        if "network" in saved:  # a checkpoint of another run may have no average: both begin there
            network.load_state_dict(saved["network"])
        self.model.n_averaged.fill_(saved.get("averaged_steps", 0))


class CheckpointMean(Averaging):
    """Which checkpoints are averaged at the end: the last ones, or the best by the number that
    selects (on a tie the earlier one)."""

    def __init__(self, kind: Literal["last", "best"], count: int, refresh_batches: int) -> None:
        super().__init__()
        self.kind, self.count, self.refresh_batches = kind, count, refresh_batches
        self._ranked: list[tuple[float, int]] = []

    def after_eval(self, step: int, selects: float | None) -> None:
        if self.kind == "best" and selects is not None:
            self._keep([*self._ranked, (selects, step)])

    def before_save(self, step: int) -> None:
        if self.kind == "last":
            self._keep([*self._ranked, (-float(step), step)])

    def _keep(self, ranked: Sequence[tuple[float, int]]) -> None:
        self._ranked = sorted(ranked)[: self.count]
        self.steps = tuple(sorted(step for _, step in self._ranked))

    def state_dict(self, network: nn.Module) -> dict[str, Any]:
        return {"to_average": [list(pair) for pair in self._ranked]}

    def restore(self, network: nn.Module, saved: Mapping[str, Any], run: CheckpointFolder) -> None:
        known = [(float(value), int(step)) for value, step in saved.get("to_average", [])]
        gone = [step for _, step in known if not run.holds(step)]
        if gone:
            log.warning(
                "of the %s checkpoints so far, step %s is not in %s: it will not be averaged",
                *(self.kind, ", ".join(map(str, gone)), run.folder),
            )
        self._keep([pair for pair in known if pair[1] not in gone])

    def forget(self) -> None:
        self._keep([])

    def roll_back(self, network: nn.Module, saved: Mapping[str, Any], step: int) -> None:
        # the checkpoint of this step will hold the weights of the best again
        self._keep([] if self.kind == "last" else [p for p in self._ranked if p[1] != step])


def make_average(
    config: AverageConfig | None, network: nn.Module, phases: Sequence[Phase]
) -> Averaging:
    """The average of a recipe; one that the run cannot make is refused."""
    if config is None:
        return Averaging()
    kind, decay, count = config.kind, config.decay, config.count
    refresh_batches = config.refresh_batches
    steps = sum(phase.steps for phase in phases)
    if kind == "ema":
        span = round(1 / (1 - decay))
        log.info("a moving average over about %d steps is evaluated and saved", span)
        if span > steps:
            log.warning("the run has %d steps: much of the average will be its beginning", steps)
        return MovingAverage(network, decay)
    made = sum(_num_checkpoints(phase, kind) for phase in phases)
    if made < count:
        raise ConfigError(
            f"average.count is {count}; the run makes {made} checkpoints that it could average",
            fix="lower average.count, or evaluate and save more often",
        )
    log.info("at the end the %s %d checkpoints are averaged", kind, count)
    return CheckpointMean(kind, count, refresh_batches)


def _num_checkpoints(phase: Phase, kind: str) -> int:
    """At most: a phase may end earlier."""
    intervals = [phase.evaluate_every] + ([phase.save_every] if kind == "last" else [])
    made = {step for every in intervals for step in range(every, phase.steps, every)}
    return len(made | {phase.steps})


def float_only(update: Callable[..., None]) -> Update:
    """Whole numbers (counts, indices) are taken over, not averaged: torch would round them down."""

    def averaged(old: Sequence[Tensor], new: Sequence[Tensor], count: Any) -> None:
        if old[0].is_floating_point() or old[0].is_complex():
            update(old, new, count)
            return
        for a, b in zip(old, new, strict=True):
            a.copy_(b)

    return averaged


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    return chain(network.parameters(), network.buffers())
