"""Optimisers: every trainable parameter in exactly one group, updates masked on the device.

The fused optimisers of PyTorch take ``found_inf``: a device tensor that turns the update into
nothing, moments and step counts included.  The learning rate is a device tensor too.  So one step
neither branches nor waits, on a GPU or on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from glottis.config import Config
from glottis.errors import ConfigError, ModelError
from glottis.train.parts import named, rate_factors
from glottis.train.schedule import Schedule


class _Common(Config):
    rate: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(0.0, ge=0)
    """L2 penalty (adam, sgd) or decoupled decay (adamw)."""
    decay_norms_and_biases: bool = True
    """Whether one-dimensional parameters decay too (the research trainers: yes)."""
    head_rate_factor: float = Field(1.0, gt=0)
    """Learning rate of the loss head, as a multiple of the embedder's."""
    part_rates: dict[str, float] = Field(default_factory=dict)
    """Learning rates of parts, as multiples of ``rate``: patterns over the names of parameters
    (network.embedding.*, head.*); the first that fits counts, the others keep 1."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Each block of the network learns this much more slowly than the next one; 1 = all alike."""

    @model_validator(mode="after")
    def _rates_above_zero(self) -> _Common:
        wrong = [part for part, rate in self.__dict__["part_rates"].items() if not rate > 0]
        if wrong:
            raise ValueError(f"the rate of '{wrong[0]}' must be above 0; freeze it with a phase")
        return self


class AdamConfig(_Common):
    """Adam (Kingma and Ba, 2015) with L2 weight decay added to the gradient."""

    name: Literal["adam"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the two moments."""
    eps: float = Field(1e-8, gt=0)
    """Added to the root of the second moment."""


class AdamWConfig(AdamConfig):
    """AdamW (Loshchilov and Hutter, 2019): weight decay apart from the gradient."""

    name: Literal["adamw"] = "adamw"  # type: ignore[assignment]


class SgdConfig(_Common):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)
    """Decay of the velocity."""
    nesterov: bool = True
    """Look ahead (needs momentum)."""


OptimConfig = Annotated[AdamConfig | AdamWConfig | SgdConfig, Field(discriminator="name")]


class Optimiser:
    """A fused torch optimiser with its schedule, as the step uses it.

    applied: device tensor, the count of steps that changed the weights.  lowered: factor on the
    rate of the network, 1 unless a guard has lowered it.
    """

    def __init__(
        self,
        config: AdamConfig | AdamWConfig | SgdConfig,
        embedder: nn.Module,
        head: nn.Module,
        schedule: Schedule,
        device: torch.device,
    ) -> None:
        self.schedule, self.device = schedule, device
        self.peak = config.rate
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.applied = torch.zeros((), dtype=exact, device=device)
        self.groups = parameter_groups(
            embedder,
            head,
            weight_decay=config.weight_decay,
            decay_all=config.decay_norms_and_biases,
            factors=rate_factors(
                embedder, head, config.head_rate_factor, config.part_rates, config.layer_decay
            ),
        )
        self.factors = [group.pop("rate_factor") for group in self.groups]
        self._part = [group.pop("part") for group in self.groups]
        self.lowered = 1.0
        for group in self.groups:
            group["lr"] = torch.zeros((), device=device)
        self.inner = _fused(config, self.groups)
        mine = {id(parameter) for parameter in self.parameters}
        self.named = {name: p for name, p in named(embedder, head) if id(p) in mine}
        self.set_rate()

    @property
    def parts(self) -> dict[str, float]:
        """Multiples of the rate by part ("network", "head"), where they differ from 1."""
        lowered = [self.lowered if part == "network" else 1.0 for part in self._part]
        factors = [one * factor for one, factor in zip(self.factors, lowered, strict=True)]
        return _parts(self._part, factors)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.groups for p in group["params"]]

    def require_complete(self, module: nn.Module) -> None:
        """Every trainable parameter of ``module`` is in one of the groups (rule O1)."""
        mine = {id(parameter) for parameter in self.parameters}
        left = [n for n, p in module.named_parameters() if p.requires_grad and id(p) not in mine]
        if left:
            raise ModelError(
                f"{len(left)} trainable parameters are in no group of the optimiser: "
                f"{', '.join(left[:5])}",
                why="they get gradients and never move, while the loss falls all the same",
                fix="give them to the optimiser, or freeze them",
                rule="O1",
            )

    def zero_grad(self) -> None:
        self.inner.zero_grad(set_to_none=True)

    def rate(self) -> Tensor:
        """Learning rate of the embedder for the next step, a device tensor."""
        return self.schedule.factor(self.applied) * self.peak

    def set_rate(self) -> None:
        rate = self.rate()
        for group, factor, part in zip(
            self.inner.param_groups, self.factors, self._part, strict=True
        ):
            group["lr"].copy_(rate * factor * (self.lowered if part == "network" else 1.0))

    def step(self, finite: Tensor) -> None:
        """Update where ``finite``; the rate is a function of the count of applied steps."""
        self.set_rate()
        for parameter in self.parameters:
            # the fused kernels walk memory: a gradient in another layout would be misread silently
            if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
                parameter.grad = _in_layout_of(parameter, parameter.grad)
        self.inner.grad_scale = None  # type: ignore[attr-defined]
        self.inner.found_inf = (~finite).to(torch.float32)  # type: ignore[attr-defined]
        self.inner.step()
        self.applied += finite

    def lower(self, factor: float) -> None:
        """The network learns at ``factor`` times its rate from now on; the loss as before."""
        self.lowered *= factor

    def forget(self) -> None:
        """Moments of zero, as at the start."""
        for moments in self.inner.state.values():
            for value in moments.values():
                value.zero_()

    def adopt(self, earlier: Optimiser) -> None:
        """Take over the moments of what an earlier phase trained, if the optimiser is of a kind.

        By name and shape: of a loss that is another one, what kept its values keeps its moments.
        """
        if type(self.inner) is not type(earlier.inner):
            return
        for name, parameter in self.named.items():
            known = earlier.named.get(name)
            if known is None or known.shape != parameter.shape:
                continue
            moments = earlier.inner.state.get(known, {})
            if moments.keys() == self.inner.state[parameter].keys():  # SGD may have had no velocity
                self.inner.state[parameter] = moments

    def state_dict(self) -> dict[str, Any]:
        moments = self.inner.state_dict()
        return {"optimiser": moments, "applied": self.applied.clone(), "lowered": self.lowered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        saved = [len(group["params"]) for group in state["optimiser"]["param_groups"]]
        own = [len(group["params"]) for group in self.inner.param_groups]
        if saved != own:
            raise ModelError(
                f"the checkpoint's optimiser has groups of {_sizes(saved)} parameters, this "
                f"recipe's has {_sizes(own)}",
                why="other parts of the network learned there, or at other rates",
                fix="resume with the recipe of that run, or start a new run with init=",
                rule="C8",
            )
        self.inner.load_state_dict(state["optimiser"])
        for group in self.inner.param_groups:  # restored as saved: keep them tensors of ours
            group["lr"] = torch.as_tensor(group["lr"], device=self.device).clone()
        for parameter, moments in self.inner.state.items():  # the layout may have changed since
            for name, value in moments.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    moments[name] = _in_layout_of(parameter, value)
        self.applied.copy_(state["applied"])
        self.lowered = state.get("lowered", 1.0)


def parameter_groups(
    embedder: nn.Module,
    head: nn.Module,
    *,
    weight_decay: float,
    decay_all: bool,
    factors: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Groups by (part, rate, decays or not); each trainable parameter in exactly one (rule O1).

    factors: multiple of the rate for each name of `named`.
    """
    groups: dict[tuple[bool, float, bool], dict[str, Any]] = {}
    seen: dict[int, str] = {}
    for name, parameter in named(embedder, head):
        if not parameter.requires_grad:
            continue
        if id(parameter) in seen:
            raise ModelError(
                f"parameter '{name}' is also '{seen[id(parameter)]}'",
                why="it would be updated twice per step",
                rule="O1",
            )
        seen[id(parameter)] = name
        decays = weight_decay > 0 and (decay_all or parameter.ndim > 1)
        group = groups.setdefault(
            (name.startswith("head."), factors[name], decays),
            {
                "params": [],
                "weight_decay": weight_decay if decays else 0.0,
                "rate_factor": factors[name],
                "part": "head" if name.startswith("head.") else "network",
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise ConfigError("nothing is trainable", fix="unfreeze a part of the model", rule="O1")
    return list(groups.values())


def _parts(names: list[str], factors: list[float]) -> dict[str, float]:
    """The multiples that are not 1, by part; of a part with several, each with its number."""
    several = {name: sorted({f for n, f in zip(names, factors, strict=True) if n == name})
               for name in dict.fromkeys(names)}  # fmt: skip
    found = {}
    for name, values in several.items():
        for number, value in enumerate(values):
            if value != 1.0:
                found[name if len(values) == 1 else f"{name}_{number}"] = value
    return found


def _sizes(groups: list[int]) -> str:
    return " and ".join(map(str, groups))


def _in_layout_of(parameter: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(parameter).copy_(value)


def _fused(
    config: AdamConfig | AdamWConfig | SgdConfig, groups: list[dict[str, Any]]
) -> torch.optim.Optimizer:
    name = config.name
    optimiser: torch.optim.Optimizer
    if isinstance(config, SgdConfig):
        optimiser = torch.optim.SGD(
            groups,
            lr=torch.zeros(()),
            momentum=config.momentum,
            nesterov=config.nesterov and config.momentum > 0,
            fused=True,
        )
        moments = ["momentum_buffer"] if config.momentum > 0 else []
    else:
        kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
        optimiser = kind(groups, lr=torch.zeros(()), betas=config.betas, eps=config.eps, fused=True)
        moments = ["exp_avg", "exp_avg_sq"]
    # all memory is there before the first step, whose update cannot be made half; and the fused
    # kernel would leave a new velocity unwritten if the very first step is skipped
    for parameter in (p for group in groups for p in group["params"]):
        state = optimiser.state[parameter]
        if "exp_avg" in moments:
            state["step"] = torch.zeros((), device=parameter.device)
        state |= {name: torch.zeros_like(parameter) for name in moments}
    return optimiser
