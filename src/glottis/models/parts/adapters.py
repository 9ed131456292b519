"""LoRA: small trained matrices beside frozen linear layers.

Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022: the output of a layer
becomes W x + (alpha / rank) B A x with A random, B zero at first and W frozen.  Through `peft`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from glottis.errors import ConfigError, ModelError
from glottis.models.parts.pretrained import library

_MARK = "lora_"


def add_lora(
    network: nn.Module, targets: tuple[str, ...], *, rank: int, alpha: float, dropout: float
) -> None:
    """Adapt the linear layers with these last names, in place; all else is frozen."""
    peft = library("peft", "trainable: lora")
    linear = {
        name.rpartition(".")[2]
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    }
    unknown = [name for name in targets if name not in linear]
    if unknown:
        raise ConfigError(
            f"the network has no linear layer called {', '.join(unknown)}",
            fix=f"choose lora_targets among {', '.join(sorted(linear))}",
        )
    settings = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets), bias="none"
    )
    peft.inject_adapter_in_model(settings, network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(_MARK in name)


def lora_dropouts(network: nn.Module) -> list[nn.Module]:
    """The dropout layers of the adapters."""
    return [m for name, m in network.named_modules() if name.endswith("lora_dropout.default")]


def merged(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Tensors of a network with adapters -> those of the same without: W + scale B A.

    scale: alpha / rank.  Of a convolution A has the kernel and B is 1x1.
    """
    plain = {}
    for name, value in state.items():
        layer, base, rest = name.rpartition(".base_layer.")
        if base and rest == "weight":
            first, second = (state[f"{layer}.{_MARK}{x}.default.weight"].flatten(1) for x in "AB")
            value = value + scale * (second @ first).view_as(value)
        if f".{_MARK}" not in name:
            plain[f"{layer}.{rest}" if base else name] = value
    return plain


def require_gradients(network: nn.Module, forward: Callable[[], Tensor]) -> None:
    """Raise `ModelError` unless every trainable parameter takes part in ``forward()``.

    An adapter around a layer that the network never calls trains nothing, without any error:
    WavLM's attention hands the weights of q_proj, k_proj, v_proj and out_proj to a function of
    torch.
    """
    names = [name for name, p in network.named_parameters() if p.requires_grad]
    parameters = [p for p in network.parameters() if p.requires_grad]
    with torch.enable_grad():
        output = forward().sum()
    gradients: tuple[Tensor | None, ...] = (None,) * len(names)
    if output.requires_grad:
        gradients = torch.autograd.grad(output, parameters, allow_unused=True)
    dead = [name for name, value in zip(names, gradients, strict=True) if value is None]
    if not dead:
        return
    layers = sorted({name.partition(f".{_MARK}")[0].rpartition(".")[2] for name in dead})
    raise ModelError(
        f"{len(dead)} of {len(names)} adapter weights receive no gradient, in the layers "
        f"{', '.join(layers)}",
        why="the network reads the weights of these layers without calling them (WavLM's "
        "attention does): an adapter beside them would train nothing",
        fix="leave lora_targets out for the layers that work, or choose intermediate_dense and "
        "output_dense",
        rule="O1",
    )
