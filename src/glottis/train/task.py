"""A task is what is optimised: embedder + loss head + label map.

    wave (B, S) int16 -> float -> augmentations -> front end -> masks -> network -> loss head

Parts whose parameters are all frozen are kept in eval() by the task itself.
B batch, S samples, F features, T frames, D embedding, K classes.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from glottis.audio.pcm import FULL_SCALE
from glottis.augment import Augmenter
from glottis.data.batch import Part
from glottis.errors import ModelError
from glottis.losses import LossOutput
from glottis.models import Reconstructed, SpeakerModel, SpoofModel, SpoofOutput
from glottis.rng import generator
from glottis.train import distributed
from glottis.train.parts import all_names, matches, named, require_patterns
from glottis.train.precision import Precision
from glottis.train.shares import gradient_squares
from glottis.train.terms import Term


class Loss(Protocol):
    """What a registered loss head is, besides a module (see `glottis.losses`)."""

    batch: str
    input: str

    def __call__(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossOutput: ...

    def chance_loss(self, num_classes: int) -> float: ...

    def collapse_loss(self, num_classes: int) -> float | None: ...

    def state_dict(self) -> dict[str, Any]: ...


Counts = tuple[Tensor, Tensor | float]  # of a part in its batch: by mass, by items


class Objective(NamedTuple):
    """What a part of a batch costs.

    loss: of the head, the mean over its mass.  stats: detached scalars beside it.
    extra: sum of the weighted terms, the mean over the items; None without terms.
    extra_stats: each term by itself, detached.  squares: of the gradients of the loss and of the
    terms where they meet, if they were asked for (see `glottis.train.shares`).
    """

    loss: Tensor
    stats: dict[str, Tensor]
    extra: Tensor | None = None
    extra_stats: dict[str, Tensor] = {}  # noqa: RUF012
    squares: dict[str, Tensor] = {}  # noqa: RUF012


class Inputs(NamedTuple):
    """What the network hears of a part.

    wave: (B, S) float32, augmented.  features: (B, F, T), masked; None where the network hears the
    wave.  mixed: of a mixup, the partner of each item and its own share.
    """

    wave: Tensor
    features: Tensor | None = None
    mixed: tuple[Tensor, Tensor] | None = None


class Task(nn.Module):
    """Embedder, loss head and label map in one module.

    label_map: name of each class, in the order of the class numbers.
    seed: of what the network draws in a step.
    terms: what is added to the loss of the head.
    fresh: names of parameters of the network that start at random values, not those of a file.
    patterns: of what learns in this phase.
    """

    def __init__(
        self,
        embedder: SpeakerModel | SpoofModel,
        head: Loss,
        label_map: Sequence[str],
        seed: int,
        augmenter: Augmenter | None = None,
    ) -> None:
        super().__init__()
        self.embedder = embedder
        self.head: Any = head
        self.label_map, self.seed, self.augmenter = tuple(label_map), seed, augmenter
        self.terms: Sequence[Term] = ()
        self.fresh: frozenset[str] = frozenset()
        # what the model and the loss keep fixed themselves stays so in every phase
        parts = named(embedder, typing.cast(nn.Module, head))
        self._free = {name for name, p in parts if p.requires_grad}
        self.patterns: Sequence[str] = ("*",)
        self._replica: list[DistributedDataParallel] = []  # a list hides it from the module tree

    def may_learn(self, head: Any) -> set[str]:
        """Names of what learns unless a phase freezes it, with this loss."""
        if head is self.head:
            return self._free
        own = {name for name in self._free if not name.startswith("head.")}
        return own | {f"head.{n}" for n, p in head.named_parameters() if p.requires_grad}

    def free(self, patterns: Sequence[str]) -> list[str]:
        """Train the parts that the patterns name and freeze the others; the names that learn."""
        require_patterns(patterns, all_names(self.embedder, self.head), "parts")
        self.patterns = patterns
        for name, parameter in named(self.embedder, self.head):
            parameter.requires_grad_(name in self._free and matches(name, patterns))
            if not parameter.requires_grad:
                parameter.grad = None
        return [name for name, p in named(self.embedder, self.head) if p.requires_grad]

    def replace_head(self, head: nn.Module) -> list[str]:
        """Another loss; what keeps name and shape keeps its values.  Names of the new tensors."""
        old: dict[str, Tensor] = self.head.state_dict()
        state = head.state_dict()
        kept = {n: old[n] for n, value in state.items() if n in old and old[n].shape == value.shape}
        self.head = head
        self.head.load_state_dict({**state, **kept})
        self._free = {name for name in self._free if not name.startswith("head.")}
        self._free |= {f"head.{n}" for n, p in self.head.named_parameters() if p.requires_grad}
        return [name for name in state if name not in kept]

    def frozen(self) -> dict[str, Tensor]:
        """Parameters that do not learn, and buffers of frozen modules."""
        found: dict[str, Tensor] = {n: p for n, p in self.named_parameters() if not p.requires_grad}
        for prefix, module in self.named_modules():
            if self._is_frozen(prefix, module):
                found |= {f"{prefix}.{n}": b for n, b in module.named_buffers(recurse=False)}
        return found

    def _is_frozen(self, prefix: str, module: nn.Module) -> bool:
        """Whether it holds parameters and none learns; or only buffers, and no part names them."""
        parameters = list(module.parameters())
        if parameters:
            return not any(p.requires_grad for p in parameters)
        public = prefix.removeprefix("embedder.")
        buffers = [f"{public}.{name}" for name, _ in module.named_buffers(recurse=False)]
        return bool(buffers) and not any(matches(name, self.patterns) for name in buffers)

    def train(self, mode: bool = True) -> Task:
        """As usual, but frozen parts stay in eval()."""
        super().train(mode)
        stopped: tuple[str, ...] = ()
        for prefix, module in self.named_modules():  # a module before those inside
            if self._is_frozen(prefix, module):
                module.eval()
                stopped += (f"{prefix}.",)
            elif prefix.startswith(stopped) and not list(module.parameters()):
                named_itself = any(True for _ in module.buffers(recurse=False))
                module.train(mode and named_itself)
        return self

    def distribute(self) -> None:
        """Average gradients over the processes of the group, if there is one."""
        self._replica = []
        if distributed.world() > 1:
            # shared batch norms keep the buffers equal; the keyword has two names across versions
            known = inspect.signature(DistributedDataParallel.__init__).parameters
            keyword = "forward_sync_buffers"
            keyword = keyword if keyword in known else "broadcast_buffers"
            options: dict[str, Any] = {keyword: False}
            self._replica = [DistributedDataParallel(self, **options)]

    def synchronised(self, *, last: bool) -> AbstractContextManager[object]:
        """Gradients are exchanged only after the last part of a batch."""
        if self._replica and not last:
            return self._replica[0].no_sync()
        return nullcontext()

    def run(self, part: Part, precision: Precision, *, measure: Counts | None = None) -> Objective:
        """Loss and detached statistics of a part, through DDP if there is a group.

        measure: the gradients of loss and terms too, which count that much in the batch.
        """
        module = self._replica[0] if self._replica else self
        return Objective(*module(part, precision, measure))

    def require_gradients(self) -> None:
        """After a step: every trainable parameter was reached by it (rule O2)."""
        dead = [n for n, p in self.named_parameters() if p.requires_grad and p.grad is None]
        if dead:
            shown = ", ".join(dead[:5]) + (f" and {len(dead) - 5} more" if len(dead) > 5 else "")
            raise ModelError(
                f"no gradient reaches {len(dead)} trainable parameters: {shown}",
                why="they would stay as they were made while everything around them learns",
                fix="this part of the network is not used with these options: freeze it, or "
                "leave it out",
                rule="O2",
            )

    def mass(self, labels: Tensor) -> Tensor:
        """What a mean loss divides by: the items, or their class weights if the loss has them."""
        if hasattr(self.head, "mass"):
            weights: Tensor = self.head.mass(labels)
            return weights
        return torch.tensor(float(len(labels)), device=labels.device)

    def forward(self, part: Part, precision: Precision, measure: Counts | None = None) -> Objective:
        return self.objective(self.inputs(part), part, precision, measure)

    def inputs(self, part: Part) -> Inputs:
        """The waves with their augmentations, and the features with theirs."""
        with torch.no_grad():
            wave = part.wave.to(torch.float32) / FULL_SCALE  # as glottis.audio.to_float
            mixed = None
            if self.augmenter is not None and self.training:
                wave = self.augmenter.apply_wave(wave, part.params)
                wave, mixed = self.augmenter.mix(wave, part.params)
            place = torch.arange(wave.shape[1], device=wave.device)
            wave = wave * (place < part.num_samples[:, None])  # padding stays zero under noise
        if self.embedder.frontend is None:
            return Inputs(wave, None, mixed)
        features = self.embedder.frontend(wave)
        if self.augmenter is not None and self.training:
            features = self.augmenter.apply_features(features, part.params)
        return Inputs(wave, features, mixed)

    def objective(
        self, inputs: Inputs, part: Part, precision: Precision, measure: Counts | None = None
    ) -> Objective:
        """Network, loss and terms."""
        x = inputs.wave if inputs.features is None else inputs.features
        # what the network itself draws (masks of filters) is a function of (seed, step) too
        drawn = self.embedder.draw(generator(self.seed, "network", part.step))
        with precision.autocast():
            output = self.embedder.network(x, **drawn)
        loss, stats = self._head_loss(output, part, inputs.mixed)
        stats |= embedding_stats(output)
        if hasattr(self.embedder.network, "statistics"):
            stats |= self.embedder.network.statistics()
        return self._with_terms(Objective(loss, stats), output, part, precision, measure)

    def _head_loss(
        self, output: Any, part: Part, mixed: tuple[Tensor, Tensor] | None
    ) -> LossOutput:
        labels, target = part.labels, self._head_input(output, part.group)
        if part.group:
            labels = distributed.gather_rows(labels.view(-1, part.group)[:, 0])
        if mixed is None:
            result: LossOutput = self.head(target, labels)
            return result
        partner, share = mixed
        first = self.head(target, labels, weights=share)
        second = self.head(target, labels[partner], weights=1 - share)
        return LossOutput(first.loss + second.loss, first.stats)

    def _with_terms(
        self, head: Objective, output: Any, part: Part, precision: Precision, measure: Counts | None
    ) -> Objective:
        if not (self.terms and self.training):  # rows of an evaluation are others
            return head
        scores = getattr(self.head, "scores", None)
        values = {term.name: term(output, part, scores).mean() for term in self.terms}
        weighted = {term.name: term.weight * values[term.name] for term in self.terms}
        seen = {f"loss_{name}": value.detach() for name, value in values.items()}
        squares: dict[str, Tensor] = {}
        if measure is not None:
            counted = {name: value * measure[1] for name, value in weighted.items()}
            counted = {"loss": head.loss * measure[0], **counted}
            squares = gradient_squares(counted, output, precision.scale)
        total = torch.stack(list(weighted.values())).sum()
        return head._replace(extra=total, extra_stats=seen, squares=squares)

    def _head_input(self, output: Tensor | SpoofOutput | Reconstructed, group: int) -> Tensor:
        if isinstance(output, SpoofOutput):
            return output.logits if self.head.input == "logits" else output.embedding
        if isinstance(output, Reconstructed):
            output = output.embedding
        if group:  # (P K, D) -> (P, K, D), of all processes: the loss compares speakers
            return distributed.gather_rows(output.view(-1, group, output.shape[-1]))
        return output


@torch.no_grad()
def embedding_stats(output: Any) -> dict[str, Tensor]:
    """Mean length of the (B, D) embeddings, and the mean cosine of two of them (0 if B is 1)."""
    embedding = getattr(output, "embedding", output).detach().float()
    norm = embedding.norm(dim=1)
    count = len(embedding)
    centre = (embedding / norm.clamp_min(1e-12)[:, None]).mean(dim=0)
    cosine = (count * centre.square().sum() - 1) / max(1, count - 1)
    return {"embedding_norm": norm.mean(), "embedding_cosine": cosine}
