"""Matryoshka: one embedding whose first values are embeddings of their own.

Kusupati et al., "Matryoshka representation learning", NeurIPS 2022 (arXiv 2205.13147), equation 1:
the weighted mean of any loss over prefixes of the embedding.

Shapes: B batch, D embedding, d a prefix.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call

from glottis.config import Choice, Config
from glottis.errors import ConfigError
from glottis.losses._common import LossOutput, in_float32
from glottis.losses._registry import LOSSES, build_loss, register_loss

_AAM = LOSSES.config("aam_softmax")


class MatryoshkaConfig(Config):
    """Options of the Matryoshka loss."""

    dims: tuple[int, ...] = (64, 128, 192, 256)
    """sizes of the prefixes, growing; the last is the whole embedding"""
    weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """of the prefixes; they are divided by their sum; empty = all alike"""
    shared: bool = True
    """one class vector whose prefixes serve the smaller sizes, or one for every size"""
    loss: Annotated[Config, Choice(LOSSES)] = _AAM
    """of every prefix"""

    @model_validator(mode="after")
    def _sizes(self) -> MatryoshkaConfig:
        dims, weights = self.__dict__["dims"], self.__dict__["weights"]
        if not dims or any(b <= a for a, b in zip((0, *dims), dims, strict=False)):
            raise ValueError("'dims' must be positive and grow")
        if weights and (len(weights) != len(dims) or sum(weights) == 0):
            raise ValueError(f"'weights' needs one value for each of the {len(dims)} dims")
        return self


@register_loss("matryoshka", MatryoshkaConfig)
class Matryoshka(nn.Module):
    """Embeddings (B, D) or (P, K, D), labels -> weighted mean of a loss over prefixes of D.

    Kusupati et al., NeurIPS 2022.  Shared: what the loss learns of size D is cut to d; its other
    parameters (a scale, a bias) are the same for all sizes.
    """

    reference = "Kusupati et al., NeurIPS 2022"
    task = "speaker"
    batch = "flat"
    input = "embedding"

    def __init__(self, config: MatryoshkaConfig, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.dims, self.shared = config.dims, config.shared
        if self.dims[-1] != embedding_size:
            raise ConfigError(
                f"the embedding has {embedding_size} values, loss.dims ends with {self.dims[-1]}",
                fix="make model.embedding_size the last of loss.dims",
            )
        weights = config.weights or (1.0,) * len(self.dims)
        self.weights = tuple(weight / sum(weights) for weight in weights)
        heads = [build_loss(config.loss, size, num_classes) for size in self.dims]
        if heads[-1].task != "speaker":
            raise ConfigError("a Matryoshka loss is for embeddings; this is a spoofing loss")
        self.batch, self.input = heads[-1].batch, heads[-1].input
        own = (-1,) if config.shared else range(len(self.dims))
        # by size: a phase that adds sizes keeps the class weights of the others
        self.heads = nn.ModuleDict({str(self.dims[index]): heads[index] for index in own})
        # heads of the smaller sizes that borrow their tensors; a tuple hides them from the module
        self._shapes: tuple[Any, ...] = tuple(heads) if config.shared else ()

    @in_float32
    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput:
        total = torch.zeros((), device=x.device)
        stats: dict[str, Tensor] = {}
        for index, (size, share) in enumerate(zip(self.dims, self.weights, strict=True)):
            loss, found = self._head(index, x[..., :size], labels, weights)
            total = total + share * loss
            stats |= {f"loss_{size}": loss.detach(), f"accuracy_{size}": found["accuracy"]}
        return LossOutput(total, {"accuracy": found["accuracy"], **stats})

    def _head(self, index: int, x: Tensor, labels: Tensor, weights: Tensor | None) -> LossOutput:
        if not self.shared:
            result: LossOutput = self.heads[str(self.dims[index])](x, labels, weights)
            return result
        shape = self._shapes[index].train(self.training)
        borrowed: LossOutput = functional_call(shape, self._borrowed(shape), (x, labels, weights))
        return borrowed

    def _borrowed(self, shape: nn.Module) -> dict[str, Tensor]:
        """The tensors of the whole head, cut to what ``shape`` has.

        Buffers are copies but for the last size: a state that moves on with every call (the turn of
        a class sample) moves once per step and is the same for all sizes.
        """
        whole = self._whole
        own = {**dict(shape.named_parameters()), **dict(shape.named_buffers())}
        moving = {} if shape is self._shapes[-1] else dict(whole.named_buffers())
        full = {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
        full |= {name: value.clone() for name, value in moving.items()}
        return {
            name: value[..., : own[name].shape[-1]] if value.ndim else value
            for name, value in full.items()
        }

    @property
    def _whole(self) -> Any:
        """The head of all values."""
        return self.heads[str(self.dims[-1])]

    @property
    def margin(self) -> float | None:
        """Of the loss of every size, if it has one."""
        return getattr(self._whole, "margin", None)

    def set_margin(self, margin: float) -> None:
        """Another margin from the next step on, for every size."""
        for head in (*self.heads.values(), *self._shapes):
            if not hasattr(head, "set_margin"):
                raise ConfigError("the loss of the sizes has no margin to change")
            head.set_margin(margin)

    def chance_loss(self, num_classes: int) -> float:
        """Weighted mean over the sizes."""
        return self._mean("chance_loss", num_classes) or 0.0

    def collapse_loss(self, num_classes: int) -> float | None:
        """Weighted mean over the sizes, or None if the loss has no such value."""
        return self._mean("collapse_loss", num_classes)

    def _mean(self, value: str, num_classes: int) -> float | None:
        heads = self._shapes if self.shared else tuple(self.heads.values())
        found = [getattr(head, value)(num_classes) for head in heads]
        if any(entry is None for entry in found):
            return None
        return float(sum(w * v for w, v in zip(self.weights, found, strict=True)))
