"""LoRA beside the layers of any network: few parameters learn, the published ones stay as they are.

LoRA (Hu et al., ICLR 2022) through `peft`; beside a convolution A has its kernel and B is 1x1.  B
is zero at first: the network begins as what `init` gave it.  A checkpoint holds layers and adapters
apart, to be continued bit for bit; what loads it as a model merges them (`merged`).
"""

from __future__ import annotations

import logging
import re

import torch
from pydantic import Field
from torch import nn

from glottis.config import Config, to_tree
from glottis.errors import ConfigError
from glottis.models import SpeakerModel, SpoofModel
from glottis.models.parts.pretrained import library
from glottis.train.parts import matches

log = logging.getLogger(__name__)

PARTS = "network.*.lora_[AB].*"
"""the parameters of all adapters, as a pattern"""


class AdaptersConfig(Config):
    """Adapters (LoRA): beside them learn only the loss and what ``parts`` or ``new_parts`` name."""

    rank: int = Field(8, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(16.0, gt=0)
    """The adapters' output is multiplied by this over their rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the input of the adapters."""
    targets: tuple[str, ...] = Field(min_length=1)
    """Adapted layers, as patterns over the names of modules (network.stages.3): linear ones, and
    convolutions without groups and dilation."""


def add_adapters(model: SpeakerModel | SpoofModel, config: AdaptersConfig, seed: int) -> None:
    """Adapt the layers that the targets name, in place; their names get a ``base_layer``."""
    peft = library("peft", "the section adapters")
    layers = [name.removeprefix("network.") for name in _layers(model, config.targets)]
    lora = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="|".join(map(re.escape, layers)),  # a list would match ends of names
        bias="none",
    )
    kept = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(lora, model.network)
    for parameter, learns in kept:  # what is frozen is decided by the phases
        parameter.requires_grad_(learns)
    model.adapters = to_tree(config)


def _layers(model: nn.Module, targets: tuple[str, ...]) -> list[str]:
    """Names of the layers that the targets name; each names one at least."""
    modules = {n: m for n, m in model.named_modules() if n.startswith("network.")}
    if any(name.endswith(".lora_A") for name in modules):
        raise ConfigError(
            "the network has adapters of its own (model.encoder.trainable: lora)",
            fix="remove the section adapters, or set model.encoder.trainable=full",
        )
    fit = [name for name, module in modules.items() if _fits(module)]
    for target in targets:
        if not any(matches(name, [target]) for name in fit):
            kinds = [type(m).__name__ for name, m in modules.items() if matches(name, [target])]
            named = f"only {', '.join(dict.fromkeys(kinds))}" if kinds else "no module"
            there = dict.fromkeys(".".join(name.split(".")[:2]) for name in fit)
            raise ConfigError(
                f"adapters.targets: '{target}' names {named}",
                why="plain linear layers and convolutions (no groups, no dilation) are adapted",
                fix=f"there are such in {', '.join(there) or 'no part of this network'}",
            )
    chosen = [name for name in fit if matches(name, targets)]
    log.info("adapters beside %d of the %d layers that can have one", len(chosen), len(fit))
    return chosen


def _fits(module: nn.Module) -> bool:
    """Whether `peft` can adapt it: of a convolution A gets kernel, stride and padding, no more."""
    if type(module) not in (nn.Linear, nn.Conv1d, nn.Conv2d) or "weight" not in module._parameters:
        return False  # what is derived from them computes something else
    if not isinstance(module, nn.Conv1d | nn.Conv2d):
        return True
    pointwise = max(module.kernel_size) == 1
    plain = module.groups == 1 and module.padding_mode == "zeros"
    return plain and (pointwise or max(module.dilation) == 1)
