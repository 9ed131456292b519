"""All augmentations of a recipe together.

    params = augmenter.draw(rng, num_samples)              # in the worker, per clip
    wave = augmenter.apply_wave(wave, batch_of_params)     # on the device, per batch
    wave, mixed = augmenter.mix(wave, batch_of_params)
    features = augmenter.apply_features(features, batch_of_params)

Shapes: B batch, S samples, F features, T frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from glottis.augment._base import Augmentation, AugmentContext, Stage
from glottis.augment._registry import AUGMENTATIONS
from glottis.augment.mixup import Mixup
from glottis.augment.speed import Speed
from glottis.config import Config
from glottis.errors import ConfigError
from glottis.rng import generator

Params = tuple[Any, ...]
"""One entry per augmentation of the recipe: its parameters, or None."""


class Augmenter:
    """A list of augmentations, drawn one by one and applied stage by stage.

    Within a stage they act in the order of the recipe; speed always comes first.
    names: of the augmentations, as registered.
    """

    def __init__(self, augmentations: Sequence[tuple[str, Augmentation[Any]]]) -> None:
        self.names = tuple(name for name, _ in augmentations)
        self.augmentations = tuple(augmentation for _, augmentation in augmentations)
        self._require_one("source")
        self._require_one("batch")
        self._groups = self._find_groups()
        self._clipped = torch.zeros((), dtype=torch.int64)
        self._samples = 0

    def _require_one(self, stage: Stage) -> None:
        names = [n for n, a in zip(self.names, self.augmentations, strict=True) if a.stage == stage]
        if len(names) > 1:
            raise ConfigError(
                f"the recipe has {' and '.join(names)}; only one of this stage can act",
                fix="keep one of them",
            )

    def _find_groups(self) -> dict[str, list[int]]:
        groups: dict[str, list[int]] = {}
        for index, augmentation in enumerate(self.augmentations):
            if augmentation.one_of is not None:
                groups.setdefault(augmentation.one_of, []).append(index)
        for word, members in groups.items():
            total = sum(self.augmentations[i].probability for i in members)
            if total > 1.0 + 1e-9:
                raise ConfigError(
                    f"the probabilities of 'one_of: {word}' add up to {total:g}",
                    why="they exclude each other, so together they are at most 1",
                    fix="lower them; what is missing to 1 is the share of untouched clips",
                )
        return groups

    def require_fit(self, *, task: str, grouped: bool, features: bool) -> None:
        """Raise ConfigError for what would do nothing in this training, or change its labels.

        task: "speaker" or "spoof".  grouped: the loss compares groups of utterances.  features:
        the network has a front end.
        """
        for name, augmentation in zip(self.names, self.augmentations, strict=True):
            if augmentation.stage == "features" and not features:
                raise ConfigError(
                    f"'{name}' hides features, but the network takes the waveform itself",
                    why="it would do nothing and say nothing",
                    fix="remove it; AASIST has a mask of its own: model.frequency_mask",
                )
            if augmentation.stage == "batch" and grouped:
                raise ConfigError(
                    f"'{name}' mixes clips of different speakers, and the loss compares groups",
                    why="a mixed clip belongs to no group",
                    fix="remove it, or take a loss over single clips (softmax family)",
                )
        if self.label_copies > 1 and (task != "speaker" or grouped):
            raise ConfigError(
                "speed as_new_speakers makes new classes, which this training has not",
                why="a countermeasure has two classes; in a group all clips are of one speaker",
                fix="set as_new_speakers: false",
            )

    # ------------------------------------------------------------ in the worker

    def draw(self, rng: np.random.Generator, num_samples: int, strength: float = 1.0) -> Params:
        """Parameters for one clip; strength: factor on all probabilities (a curriculum).

        Takes one number from ``rng``, and every augmentation has a stream of its own: adding one
        of another name to a recipe changes neither the crops nor what the others draw.
        """
        key = int(rng.integers(2**62))
        winners = {self._winner(word, key, strength) for word in self._groups}
        params = []
        for index, augmentation in enumerate(self.augmentations):
            stream = generator(key, self.names[index], self.names[:index].count(self.names[index]))
            if augmentation.one_of is None:
                params.append(augmentation.draw(stream, num_samples, strength))
            elif index in winners:
                params.append(augmentation.sample(stream, num_samples))
            else:
                params.append(None)
        return tuple(params)

    def _winner(self, word: str, key: int, strength: float) -> int | None:
        place = float(generator(key, "one_of", word).random())
        for index in self._groups[word]:
            place -= self.augmentations[index].probability * strength
            if place < 0.0:
                return index
        return None

    def source_samples(self, params: Params, num_samples: int) -> int:
        """How many samples must be read so that ``num_samples`` come out."""
        for augmentation, drawn in zip(self.augmentations, params, strict=True):
            if isinstance(augmentation, Speed):
                return augmentation.source_samples(drawn, num_samples)
        return num_samples

    def label_offset(self, params: Params) -> int:
        """0, or the number of the speaker's copy that this clip belongs to."""
        for augmentation, drawn in zip(self.augmentations, params, strict=True):
            if isinstance(augmentation, Speed):
                return augmentation.label_offset(drawn)
        return 0

    @property
    def label_copies(self) -> int:
        """How many classes one speaker becomes: 1 unless speed makes new speakers."""
        return next((a.label_copies for a in self.augmentations if isinstance(a, Speed)), 1)

    # ------------------------------------------------------------ on the device

    def apply_wave(self, wave: Tensor, params: Sequence[Params]) -> Tensor:
        """(B, longest source) float32 -> (B, S) after speed and all wave augmentations."""
        for stage in ("source", "wave"):
            for index, augmentation in enumerate(self.augmentations):
                if augmentation.stage == stage:
                    wave = augmentation.apply(wave, [row[index] for row in params])
        self._clipped = self._clipped.to(wave.device) + (wave.abs() > 1.0).sum()
        self._samples += wave.numel()
        return wave

    def mix(
        self, wave: Tensor, params: Sequence[Params]
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Mixup if the recipe has it: the waves, and (partner (B,), share (B,)) or None."""
        for index, augmentation in enumerate(self.augmentations):
            if isinstance(augmentation, Mixup):
                wave, partner, share = augmentation.apply(wave, [row[index] for row in params])
                return wave, (partner, share)
        return wave, None

    def apply_features(self, features: Tensor, params: Sequence[Params]) -> Tensor:
        """(B, F, T) -> (B, F, T) with the masks."""
        for index, augmentation in enumerate(self.augmentations):
            if augmentation.stage == "features":
                features = augmentation.apply(features, [row[index] for row in params])
        return features

    def to(self, device: torch.device | str) -> Self:
        """Move banks and filters."""
        for augmentation in self.augmentations:
            augmentation.to(device)
        return self

    # ------------------------------------------------------------ what happened

    def records(self, params: Params) -> list[dict[str, Any] | None]:
        """The parameters as plain data, for a log."""
        return [None if drawn is None else asdict(drawn) for drawn in params]

    def from_records(self, records: Sequence[Mapping[str, Any] | None]) -> Params:
        """What `records` wrote, ready to be applied again."""
        return tuple(
            None if record is None else augmentation.params_type(**_tuples(record))
            for augmentation, record in zip(self.augmentations, records, strict=True)
        )

    def counts(self) -> dict[str, int]:
        """Events so far, such as ``noise.0.silent``; waits for the device.

        ``samples`` and ``clipped`` are all samples after `apply_wave` and those beyond [-1, 1].
        """
        result = {"samples": self._samples, "clipped": int(self._clipped)}
        for index, augmentation in enumerate(self.augmentations):
            for what, number in augmentation.counts().items():
                result[f"{self.names[index]}.{index}.{what}"] = number
        return result

    def card(self) -> list[dict[str, Any]]:
        """Name and data of every augmentation, for the run card."""
        pairs = zip(self.names, self.augmentations, strict=True)
        return [{"name": name, **augmentation.card()} for name, augmentation in pairs]

    def __getstate__(self) -> dict[str, Any]:
        """Workers only draw: nothing on a device travels to them."""
        return {**self.__dict__, "_clipped": torch.zeros((), dtype=torch.int64)}


def build_augmenter(configs: Sequence[Config], context: AugmentContext) -> Augmenter:
    """The augmenter of a recipe's ``augment`` list; banks are loaded here."""
    entries = [AUGMENTATIONS.entry_of(config) for config in configs]
    return Augmenter(
        [
            (entry.name, entry.target(config, context))
            for entry, config in zip(entries, configs, strict=True)
        ]
    )


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
