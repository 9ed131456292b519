"""Splits by speaker, and utterances of training speakers that are held out.

A person is on one side only: speakers that share a ``person_group`` (they may be one person) move
together.  A split depends on the seed and the set of speakers, not on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from glottis.data._files import some
from glottis.data.manifest import Manifest
from glottis.errors import DataError
from glottis.rng import generator

DEV_SEEN = "dev_seen"


def split_speakers(
    manifest: Manifest,
    fractions: Mapping[str, float],
    seed: int,
    stratify: Sequence[str] = ("gender", "source"),
) -> Manifest:
    """The manifest with column ``split`` filled so that no person is in two splits.

    fractions: split name -> share of the persons; they add up to 1.
    stratify: columns whose values are spread evenly over the splits, where they are known.  A
    person's value is the most frequent one of its clips.
    """
    _check_fractions(fractions)
    persons = _persons(manifest)
    count = int(persons.max()) + 1
    if count < len(fractions):
        raise DataError(
            f"{count} persons cannot be in {len(fractions)} splits",
            fix="use fewer splits",
            rule="P1",
        )
    strata = _strata(manifest, persons, count, stratify)
    shuffled: list[int] = []
    for stratum in sorted(set(strata)):
        members = [person for person in range(count) if strata[person] == stratum]
        rng = generator(seed, "split", *stratum)
        shuffled += [members[i] for i in rng.permutation(len(members))]
    splits = list(fractions)
    of_person = np.empty(count, dtype=object)
    of_person[np.array(shuffled)] = np.array(splits, dtype=object)[_deal(fractions, count)]
    return manifest.with_columns(split=of_person[persons])


def _check_fractions(fractions: Mapping[str, float]) -> None:
    bad = [f"{name}={share}" for name, share in fractions.items() if not 0 < share <= 1]
    if bad or abs(sum(fractions.values()) - 1) > 1e-6:
        raise DataError(
            f"shares of the splits are {dict(fractions)}",
            fix="each is above 0 and they add up to 1",
        )


def _deal(fractions: Mapping[str, float], count: int) -> np.ndarray:
    """(count,) split index for each place in line; every piece of the line has about the shares."""
    share = np.array(list(fractions.values()))
    dealt = np.zeros(len(share))
    result = np.empty(count, np.int64)
    for place in range(count):
        choice = int(np.argmax(share * (place + 1) - dealt))
        dealt[choice] += 1
        result[place] = choice
    for empty in np.flatnonzero(dealt == 0):  # a small share of few persons still gets one
        richest = int(np.argmax(np.bincount(result, minlength=len(share))))
        result[np.flatnonzero(result == richest)[-1]] = empty
    return result


def _persons(manifest: Manifest) -> np.ndarray:
    """(N,) person of each row: speakers joined by a common ``person_group``.

    Persons are numbered by the sorted names of speakers: row order does not matter.
    """
    speakers = manifest.factor("speaker")
    if "" in speakers.names:
        nobody = np.flatnonzero(speakers.codes == speakers.names.index(""))
        first = manifest.column("utterance")[nobody[:5]].tolist()
        raise DataError(
            f"{len(nobody)} of {len(manifest)} clips have no speaker, for example {some(first)}",
            why="they could be anybody, on both sides of the split",
            fix="fill the column speaker, or leave these clips out",
            rule="P1",
        )
    groups = manifest.factor("person_group")
    parent = list(range(len(speakers.names)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    pairs = np.unique(np.stack([groups.codes, speakers.codes]), axis=1)
    leader: dict[int, int] = {}
    for group, speaker in pairs.T.tolist():
        if groups.names[group]:
            parent[root(speaker)] = root(leader.setdefault(group, speaker))
    roots = np.array([root(i) for i in range(len(parent))])
    return np.asarray(np.unique(roots, return_inverse=True)[1].reshape(-1)[speakers.codes])


def _strata(
    manifest: Manifest, persons: np.ndarray, count: int, columns: Sequence[str]
) -> list[tuple[str, ...]]:
    """(count,) the usual values of each person."""
    values: list[list[str]] = []
    for name in columns:
        factor = manifest.factor(name)
        table = np.zeros((count, len(factor.names)), np.int64)
        np.add.at(table, (persons, factor.codes), 1)
        values.append([factor.names[i] for i in table.argmax(axis=1)])
    return [tuple(column[i] for column in values) for i in range(count)]


@dataclass(frozen=True)
class HoldOut:
    """A manifest in which some training clips became `DEV_SEEN`.

    held_out: number of those clips.  skipped: speakers with too few clips to give one away.
    """

    manifest: Manifest
    held_out: int
    skipped: tuple[str, ...]


def hold_out_seen(
    manifest: Manifest,
    seed: int,
    *,
    per_speaker: int = 1,
    keep: int = 2,
    unit: Literal["utterance", "session"] = "utterance",
    split: str = "train",
) -> HoldOut:
    """Move clips of training speakers to the split ``dev_seen``.

    They give a valid training / held-out loss; they are never used for selection, their speakers
    are known to the model.

    per_speaker: clips (or whole sessions, by ``unit``) given away by each speaker.
    keep: clips (or sessions) that must remain.
    """
    if per_speaker < 1 or keep < 1:
        raise DataError("per_speaker and keep are at least 1")
    chosen: list[int] = []
    skipped: list[str] = []
    for speaker, units in _units(manifest, split, unit).items():
        if len(units) < per_speaker + keep:
            skipped.append(speaker)
            continue
        names = sorted(units)
        order = generator(seed, "dev_seen", speaker).permutation(len(names))
        for index in order[:per_speaker]:
            chosen += units[names[index]]
    column = manifest.column("split").copy()
    column[chosen] = DEV_SEEN
    return HoldOut(manifest.with_columns(split=column), len(chosen), tuple(skipped))


def _units(manifest: Manifest, split: str, unit: str) -> dict[str, dict[str, list[int]]]:
    """Speaker -> unit name -> rows, for the rows of ``split``; sorted by speaker."""
    in_split = np.flatnonzero(manifest.column("split") == split)
    if len(in_split) == 0:
        found = some([name or "(empty)" for name in manifest.factor("split").names])
        raise DataError(f"no clip is in split '{split}'", fix=f"splits: {found}")
    speakers, names = manifest.column("speaker"), manifest.column(unit)
    table: dict[str, dict[str, list[int]]] = {}
    for row in in_split.tolist():
        if speakers[row] and names[row]:
            table.setdefault(speakers[row], {}).setdefault(names[row], []).append(row)
    if not table:
        raise DataError(
            f"no clip of split '{split}' has a speaker and a {unit}",
            fix="fill these columns" + (", or hold out by utterance" if unit == "session" else ""),
        )
    return dict(sorted(table.items()))
