"""Trials from a manifest: targets across sessions, non-targets that are not too easy.

Targets are two utterances of one speaker from two sessions.  Non-targets pair a speaker with
another of the same gender (where it is known), mostly of the same source, and never with one that
may be the same person (``person_group``).  Every speaker gets about the same number, the result
depends on the seed and the content only, and what could not be built is told.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import Field

from glottis.config import Config
from glottis.data._files import some
from glottis.data._sample import shares
from glottis.data.labels import SPOOF
from glottis.data.manifest import Manifest
from glottis.data.trials import NONTARGET, TARGET, DevelopmentTrials, Trials
from glottis.errors import DataError
from glottis.rng import generator

T = TypeVar("T", bound=Trials)
_TRIES = 30
_MAX_CLIPS = 300  # of one speaker: 44,850 possible targets are plenty


class TrialBuildConfig(Config):
    """How many trials to build, and of which kind."""

    targets_per_speaker: int = Field(20, ge=1)
    """Target trials of each speaker, if it has that many pairs."""
    nontargets_per_target: float = Field(1.0, gt=0)
    """Non-target trials for every target trial, per speaker."""
    same_session: Literal["never", "if_unknown", "always"] = "if_unknown"
    """Targets within one session: never, for speakers whose sessions are not known, or always."""
    same_gender: bool = True
    """Non-targets within one gender where it is known."""
    same_source_share: float = Field(0.8, ge=0, le=1)
    """Share of the non-targets within one source where there is another speaker of it."""
    balance_sources: bool = False
    """Give each source the same number of targets instead of each speaker."""


@dataclass(frozen=True)
class BuildReport:
    """What was built and what could not be.

    skipped: speaker -> reason, for those without a target.  short: reason -> number of trials that
    were asked for and do not exist.  per_source: source -> targets.
    """

    targets: int
    nontargets: int
    cross_session: int
    unknown_gender: int
    skipped: dict[str, str]
    short: dict[str, int]
    per_source: dict[str, int]

    def text(self) -> str:
        """A line for people."""
        parts = [
            f"{self.targets} targets ({self.cross_session} across sessions), "
            f"{self.nontargets} non-targets"
        ]
        reasons = Counter(self.skipped.values())
        parts += [f"{count} speakers without targets: {why}" for why, count in reasons.items()]
        parts += [f"{count} trials short: {why}" for why, count in self.short.items() if count]
        if self.unknown_gender:
            parts.append(f"{self.unknown_gender} non-targets with a gender that is not known")
        return "; ".join(parts)

    def as_tree(self) -> dict[str, Any]:
        """Plain data for the run card."""
        return asdict(self)


@dataclass(frozen=True)
class _Speaker:
    """One speaker's rows of the manifest, and what is known of it."""

    name: str
    rows: np.ndarray
    gender: str
    source: str
    groups: frozenset[str]


def build_trials(
    manifest: Manifest,
    config: TrialBuildConfig,
    seed: int,
    kind: type[T] = DevelopmentTrials,  # type: ignore[assignment]
) -> tuple[T, BuildReport]:
    """Trials of type ``kind`` over the bona fide clips of a manifest (usually one split of it)."""
    return _Builder(manifest, config, seed).build(kind)


class _Builder:
    def __init__(self, manifest: Manifest, config: TrialBuildConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.session = manifest.column("session")
        self.utterance = manifest.column("utterance")
        self.speakers = _speakers(manifest, seed)
        if len(self.speakers) < 2:
            raise DataError(
                f"trials need two speakers with bona fide clips, there is {len(self.speakers)}",
                fix="select another split, or fill the column speaker",
            )
        self.genders = _codes([speaker.gender for speaker in self.speakers])
        self.sources = _codes([speaker.source for speaker in self.speakers])
        self.ungendered = np.array([not speaker.gender for speaker in self.speakers])
        self.pairs: list[tuple[int, int, int]] = []
        self.skipped: dict[str, str] = {}
        self.short: Counter[str] = Counter()
        self.cross_session = self.unknown_gender = 0
        self.targets: Counter[str] = Counter()
        self.seen: set[tuple[int, int]] = set()

    def build(self, kind: type[T]) -> tuple[T, BuildReport]:
        wanted = self._wanted()
        for position, speaker in enumerate(self.speakers):
            built = self._add_targets(speaker, int(wanted[position]))
            if built:
                num_nontargets = max(1, round(built * self.config.nontargets_per_target))
                self._add_nontargets(position, num_nontargets)
        trials = self._trials(kind)
        if not trials.target.any() or trials.target.all():
            raise DataError(
                f"no usable trials: {self._report(trials).text()}",
                why="an EER needs targets and non-targets",
                fix="fill the columns session and gender, or relax same_session and same_gender",
            )
        return trials, self._report(trials)

    def _wanted(self) -> np.ndarray:
        """Targets to build per speaker."""
        per_speaker = np.full(len(self.speakers), self.config.targets_per_speaker)
        if not self.config.balance_sources:
            return per_speaker
        sources = np.array([speaker.source for speaker in self.speakers], dtype=object)
        names = sorted(set(sources))
        per_source = shares(int(per_speaker.sum()), np.ones(len(names)))
        for name, total in zip(names, per_source, strict=True):
            members = np.flatnonzero(sources == name)
            per_speaker[members] = shares(int(total), np.ones(len(members)))
        return per_speaker

    def _add_targets(self, speaker: _Speaker, wanted: int) -> int:
        rows = speaker.rows
        if len(rows) < 2:
            self.skipped[speaker.name] = "one clip"
            return 0
        first, second = np.triu_indices(len(rows), k=1)
        sessions = self.session[rows]
        known = bool(np.all(sessions != ""))
        across = sessions[first] != sessions[second]
        if known and self.config.same_session != "always":
            first, second, across = first[across], second[across], across[across]
            reason = "one session"
        elif not known and self.config.same_session == "never":
            first = first[:0]
            reason = "sessions are not known"
        if len(first) == 0:
            self.skipped[speaker.name] = reason
            return 0
        rng = generator(self.seed, "targets", speaker.name)
        chosen = rng.permutation(len(first))[:wanted]
        self.short["a speaker has fewer target pairs"] += max(0, wanted - len(chosen))
        for index in chosen:
            pair = (int(rows[first[index]]), int(rows[second[index]]))
            self._add(pair, TARGET, swap=bool(rng.integers(2)))
            self.cross_session += bool(known and across[index])
        self.targets[speaker.source] += len(chosen)
        return len(chosen)

    def _add_nontargets(self, position: int, wanted: int) -> None:
        speaker = self.speakers[position]
        rng = generator(self.seed, "nontargets", speaker.name)
        others = self._opponents(position)
        same_source = self.sources[others] == self.sources[position]
        inside, outside = others[same_source], others[~same_source]
        near = round(wanted * self.config.same_source_share)
        if not len(inside) or not len(outside):
            near = wanted if len(inside) else 0
        built = self._draw(speaker, inside, near, rng)
        built += self._draw(speaker, outside, wanted - near, rng)
        built += self._draw(speaker, others, wanted - built, rng)
        self.short["a speaker has too few opponents"] += wanted - built

    def _opponents(self, position: int) -> np.ndarray:
        """Positions of the speakers that are certainly somebody else, of the same gender."""
        speaker = self.speakers[position]
        fits = np.ones(len(self.speakers), bool)
        fits[position] = False
        if self.config.same_gender and speaker.gender:
            fits &= (self.genders == self.genders[position]) | self.ungendered
        if speaker.groups:
            fits &= [not speaker.groups & other.groups for other in self.speakers]
        return np.flatnonzero(fits)

    def _draw(
        self, speaker: _Speaker, others: np.ndarray, wanted: int, rng: np.random.Generator
    ) -> int:
        """Add up to ``wanted`` new pairs, the opponents in turn; how many it were."""
        built = failures = 0
        order: list[int] = []
        while len(others) and built < wanted and failures < _TRIES:
            order = order or rng.permutation(others).tolist()
            other = self.speakers[order.pop()]
            mine, theirs = int(rng.choice(speaker.rows)), int(rng.choice(other.rows))
            if self._add((mine, theirs), NONTARGET, swap=bool(rng.integers(2))):
                built, failures = built + 1, 0
                self.unknown_gender += not (speaker.gender and other.gender)
            else:
                failures += 1
        return built

    def _add(self, pair: tuple[int, int], kind: int, *, swap: bool) -> bool:
        first, second = pair
        key = (min(pair), max(pair))
        if key in self.seen:
            return False
        self.seen.add(key)
        self.pairs.append((second, first, kind) if swap else (first, second, kind))
        return True

    def _trials(self, kind: type[T]) -> T:
        table = np.array(self.pairs, np.int64).reshape(-1, 3)
        table = table[generator(self.seed, "trial order").permutation(len(table))]
        names = self.utterance
        return kind.from_pairs(
            names[table[:, 0]].tolist(), names[table[:, 1]].tolist(), table[:, 2]
        )

    def _report(self, trials: Trials) -> BuildReport:
        return BuildReport(
            targets=int(trials.target.sum()),
            nontargets=int((~trials.target).sum()),
            cross_session=self.cross_session,
            unknown_gender=self.unknown_gender,
            skipped=dict(self.skipped),
            short={why: count for why, count in self.short.items() if count},
            per_source=dict(sorted(self.targets.items())),
        )


def _codes(names: list[str]) -> np.ndarray:
    return np.asarray(np.unique(np.array(names, dtype=object), return_inverse=True)[1].reshape(-1))


def _speakers(manifest: Manifest, seed: int) -> list[_Speaker]:
    """The speakers of bona fide (or unlabelled) clips, sorted by name."""
    usable = (manifest.column("label") != SPOOF) & (manifest.column("speaker") != "")
    speakers = manifest.factor("speaker")
    gender, source = manifest.column("gender"), manifest.column("source")
    group, utterance = manifest.column("person_group"), manifest.column("utterance")
    order = np.flatnonzero(usable)
    order = order[np.lexsort((utterance[order].astype(str), speakers.codes[order]))]
    starts = np.flatnonzero(np.diff(speakers.codes[order], prepend=-1))
    result = []
    mixed = []
    for rows in np.split(order, starts[1:]) if len(order) else []:
        name = speakers.names[speakers.codes[rows[0]]]
        genders = set(gender[rows]) - {""}
        if len(genders) > 1:
            mixed.append(name)
        if len(rows) > _MAX_CLIPS:
            picked = generator(seed, "clips", name).permutation(len(rows))[:_MAX_CLIPS]
            rows = rows[np.sort(picked)]
        result.append(
            _Speaker(
                name,
                rows,
                min(genders, default=""),
                Counter(source[rows].tolist()).most_common(1)[0][0],
                frozenset(set(group[rows]) - {""}),
            )
        )
    if mixed:
        raise DataError(
            f"{len(mixed)} speakers have clips of two genders: {some(mixed)}",
            why="one of the two columns is wrong",
            fix="correct the manifest",
        )
    return result
