"""Rules P1 and P2: what two splits must not share.

P1: speakers (and persons, where speakers may be one person).  P2: utterances, files, and the first
seconds of the sound itself.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from glottis.data._files import some
from glottis.data.findings import Finding, raise_stops
from glottis.data.manifest import Manifest
from glottis.data.splits import DEV_SEEN

_RULES = {"speaker": "P1", "person_group": "P1", "utterance": "P2", "path": "P2"}
_WHY = {
    "P1": "a model knows these voices; the number says nothing about strangers",
    "P2": "the answer was seen in training",
}


def check_disjoint(
    splits: Mapping[str, Manifest],
    *,
    seen_speakers: Collection[str] = (DEV_SEEN,),
    content: Mapping[str, np.ndarray] | None = None,
) -> list[Finding]:
    """What the named manifests share, pair by pair.

    seen_speakers: splits whose speakers are training speakers on purpose (P1 does not apply).
    content: split -> (N,) hashes from `content_hashes`, to find copies under other names.
    """
    findings = []
    for first, second in itertools.combinations(splits, 2):
        for column, rule in _RULES.items():
            if rule == "P1" and (first in seen_speakers or second in seen_speakers):
                continue
            shared = _values(splits[first], column) & _values(splits[second], column)
            if shared:
                findings.append(_overlap(rule, column, first, second, shared))
        if content is not None:
            shared = (set(content[first].tolist()) & set(content[second].tolist())) - {""}
            if shared:
                mask = np.isin(content[second], np.array(sorted(shared), dtype=object))
                names = set(splits[second].column("utterance")[mask].tolist())
                findings.append(_overlap("P2", "sound", first, second, names))
    return findings


def require_disjoint(
    splits: Mapping[str, Manifest],
    allow: Collection[str] = (),
    *,
    seen_speakers: Collection[str] = (DEV_SEEN,),
    content: Mapping[str, np.ndarray] | None = None,
) -> None:
    """`check_disjoint`, with one error for everything that is shared."""
    findings = check_disjoint(splits, seen_speakers=seen_speakers, content=content)
    raise_stops(findings, " / ".join(splits), allow)


def content_hashes(manifest: Manifest, root: str | Path, seconds: float = 2.0) -> np.ndarray:
    """(N,) text: a hash of the first seconds of each clip as 16-bit samples at its own rate.

    Decodes every file: for a sample of a corpus, or while one waits.  Silence hashes to "" (two
    silent clips are not a copy of each other).
    """
    from glottis.audio import decode  # here: the lists need no decoder

    starts = np.nan_to_num(manifest.column("start_s"), nan=0.0)
    hashes = np.empty(len(manifest), dtype=object)
    for row, (path, start) in enumerate(zip(manifest.column("path"), starts, strict=True)):
        audio = decode(Path(root) / path, start_s=float(start), duration_s=seconds)
        samples = np.round(audio.samples * 32767).astype(np.int16)
        hashes[row] = hashlib.sha256(samples.tobytes()).hexdigest() if samples.any() else ""
    return hashes


def _values(manifest: Manifest, column: str) -> set[str]:
    return set(pc.unique(manifest.arrow(column)).to_pylist()) - {""}


def _overlap(rule: str, what: str, first: str, second: str, shared: set[str]) -> Finding:
    word = {"path": "files", "sound": "copied sounds"}.get(what, f"{what}s".replace("_", " "))
    seen = f"{first} and {second} share {len(shared)} {word}: {some(sorted(shared))}"
    fix = "split by speaker" if rule == "P1" else "keep each clip in one split"
    return Finding(rule, "stop", seen, _WHY[rule], fix)
