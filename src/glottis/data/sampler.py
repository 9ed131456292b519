"""Which clips are in the batch of step s: a pure function of (seed, s).

No sampler has state.  ``plan(step)`` gives the rows of a batch for any step in any order, so a
resumed run, a run with other workers and a run on several processes see exactly the same data.
N utterances, B batch.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Protocol

import numpy as np

from glottis.errors import DataError
from glottis.rng import generator

log = logging.getLogger(__name__)


class Sampler(Protocol):
    """Rows of the training table for each step."""

    batch_size: int
    steps_per_epoch: int

    def plan(self, step: int) -> np.ndarray:
        """Rows of the batch of this step, (B,) int64."""
        ...


class FlatSampler:
    """Every row once per epoch, in an order drawn anew for each epoch.

    drop_last: leave out the incomplete batch at the end of an epoch; otherwise it is a smaller one.
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int, *, drop_last: bool) -> None:
        if num_rows == 0:
            raise DataError("the training data is empty", fix="check data.train")
        if drop_last and num_rows < batch_size:
            raise DataError(
                f"{num_rows} training clips do not fill one batch of {batch_size}",
                fix="lower batch.size or set data.drop_last=false",
            )
        self.num_rows, self.batch_size, self.seed = num_rows, batch_size, seed
        full, rest = divmod(num_rows, batch_size)
        self.steps_per_epoch = full if drop_last or rest == 0 else full + 1
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def _draw_order(self, epoch: int) -> np.ndarray:
        return generator(self.seed, "epoch", epoch).permutation(self.num_rows)

    def plan(self, step: int) -> np.ndarray:
        epoch, place = divmod(step, self.steps_per_epoch)
        start = place * self.batch_size
        return self._order(epoch)[start : start + self.batch_size]


class BalancedSampler:
    """Every class equally often, every clip of a class equally often (both up to one).

    An epoch has as many items as the table, so small classes repeat their clips within it.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, seed: int) -> None:
        if len(labels) == 0:
            raise DataError("the training data is empty", fix="check data.train")
        self.batch_size, self.seed = batch_size, seed
        self._members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.steps_per_epoch = max(1, len(labels) // batch_size)
        self._class_order = lru_cache(maxsize=4)(self._draw_classes)
        self._clip_order = lru_cache(maxsize=4 * len(self._members))(self._draw_clips)

    def _draw_classes(self, turn: int) -> np.ndarray:
        return generator(self.seed, "classes", turn).permutation(len(self._members))

    def _draw_clips(self, label: int, turn: int) -> np.ndarray:
        return generator(self.seed, "clips", label, turn).permutation(self._members[label])

    def plan(self, step: int) -> np.ndarray:
        rows = np.empty(self.batch_size, np.int64)
        num_classes = len(self._members)
        for item in range(self.batch_size):
            # each turn visits every class once, so a class has been visited ``turn`` times before
            turn, place = divmod(step * self.batch_size + item, num_classes)
            label = int(self._class_order(turn)[place])
            repeat, position = divmod(turn, len(self._members[label]))
            rows[item] = self._clip_order(label, repeat)[position]
        return rows


class GroupedSampler:
    """P speakers x K utterances per batch, no speaker twice in a batch.

    Speakers with fewer than K clips are left out and named in the log.  Rows come speaker by
    speaker: the batch reshapes to (P, K).  The incomplete batch at the end is left out.
    """

    def __init__(
        self, labels: np.ndarray, num_speakers: int, num_utterances: int, seed: int
    ) -> None:
        self.num_speakers, self.num_utterances, self.seed = num_speakers, num_utterances, seed
        self.batch_size = num_speakers * num_utterances
        members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self._members = [rows for rows in members if len(rows) >= num_utterances]
        self.left_out = len(members) - len(self._members)
        if self.left_out:
            log.warning(
                "%d of %d speakers have fewer than %d clips and are left out of the batches",
                self.left_out,
                len(members),
                num_utterances,
            )
        if len(self._members) < num_speakers:
            raise DataError(
                f"a batch needs {num_speakers} speakers with {num_utterances} clips each; "
                f"there are {len(self._members)}",
                fix="lower batch.speakers or batch.utterances",
            )
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)
        # the number of batches depends on the draw only through the left-over groups at the end
        self.steps_per_epoch = min(len(self._epoch(epoch)) for epoch in range(2))
        self.steps_per_epoch = max(1, self.steps_per_epoch)

    def _draw_epoch(self, epoch: int) -> list[np.ndarray]:
        rng = generator(self.seed, "groups", epoch)
        groups: list[tuple[int, np.ndarray]] = []
        for speaker, rows in enumerate(self._members):
            count = len(rows) // self.num_utterances
            chosen = rng.permutation(rows)[: count * self.num_utterances]
            groups += [(speaker, part) for part in chosen.reshape(count, self.num_utterances)]
        waiting = [groups[i] for i in rng.permutation(len(groups))]
        batches: list[np.ndarray] = []
        while True:
            batch, present, postponed = [], set[int](), []
            used = 0
            for speaker, part in waiting:
                used += 1
                if speaker in present:
                    postponed.append((speaker, part))
                else:
                    present.add(speaker)
                    batch.append(part)
                if len(batch) == self.num_speakers:
                    break
            if len(batch) < self.num_speakers:
                return batches
            batches.append(np.concatenate(batch))
            waiting = postponed + waiting[used:]

    def plan(self, step: int) -> np.ndarray:
        epoch, place = divmod(step, self.steps_per_epoch)
        batches = self._epoch(epoch)
        # an unlucky epoch can be shorter than the first two: it starts over with the next draw
        return batches[place] if place < len(batches) else self._epoch(-1 - epoch)[0]
