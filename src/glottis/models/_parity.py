"""How much is known about a network being the published one, with what shows it.

golden            its outputs equal stored reference vectors of the original code, weight for weight
published count   its parameters are as many as were published; nothing else could be compared
ours              nothing published can be compared with the network as a whole

Each registered name says its own: ``register_model(name, config, parity=golden("AASIST"))``.  The
contract tests check that it is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["golden", "published count", "ours"]


@dataclass(frozen=True)
class Parity:
    """status: see above.  evidence: what shows it, for people.

    vectors: names of state-dict lists of the originals that go with reference vectors; the first
    one is the network at its default options.  published: parameters as published, as a text that
    ends in M for millions or k for thousands ("6.63M", "276k"), so that its precision is known.
    extra: parameters that the published count has on top, explained in the evidence.
    """

    status: Status
    evidence: str
    vectors: tuple[str, ...] = ()
    published: str = ""
    extra: int = 0


def golden(*vectors: str) -> Parity:
    """Equal to reference vectors of the original under these lists of tensors."""
    return Parity("golden", f"reference vectors of {', '.join(vectors)}", vectors=vectors)


def published_count(count: str, source: str, *, extra: int = 0) -> Parity:
    """As many parameters as published in ``source``, at the precision of ``count`` ("6.6M").

    extra: parameters in that count which are no part of the network here; ``source`` says which.
    """
    return Parity("published count", f"{count} in {source}", published=count, extra=extra)


def ours(why: str) -> Parity:
    """Nothing to compare the network with as a whole; ``why`` in a few words."""
    return Parity("ours", why)
