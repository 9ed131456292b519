"""Whose voice is it, of those in a file of embeddings?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glottis.errors import ConfigError, DataError
from glottis.models import read_card
from glottis.models.sizes import chosen_sizes
from glottis.score.answer import Progress, decide, embed_files, resolve_checkpoint, thresholds_of
from glottis.score.embeddings import Embeddings
from glottis.score.search import Gallery


@dataclass(frozen=True)
class Match:
    """A voice print that is near.  score: cosine.  decision: "same", "different" or None."""

    utterance: str
    score: float
    decision: str | None


@dataclass(frozen=True)
class Identification:
    """The nearest voice prints of a file, the best first.

    dim: values that were compared.  threshold: at the development EER of that size, or None.  It
    was set for pairs: of many voice prints more than one can lie above it.
    """

    file: str
    dim: int
    threshold: float | None
    matches: tuple[Match, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def identify_files(
    checkpoint: Path,
    files: Sequence[Path],
    store: Path,
    *,
    dims: str | None = None,
    top: int = 5,
    shortlist: int | None = None,
    progress: Progress | None = None,
) -> list[Identification]:
    """The ``top`` nearest of the voice prints in ``store`` (``glottis embed``) for every file.

    dims: sizes that are compared ("64,128", "all"), each by itself.  shortlist: see
    `Gallery.search`.  Raises `DataError` if the voice prints are another model's.
    """
    if shortlist is not None and shortlist < top:
        raise ConfigError(
            f"--shortlist {shortlist} is shorter than --top {top}",
            why="the matches are chosen from the shortlist",
            fix=f"--shortlist {max(top, 200)}, or --top {shortlist}",
        )
    voices = Embeddings.load(store)
    if not len(voices):
        raise DataError(f"{store} holds no voice prints", fix="embed some files first")
    card = read_card(resolve_checkpoint(checkpoint))
    if voices.about.get("weights_sha256") != card["weights_sha256"]:
        raise DataError(
            f"{store} was not made with {checkpoint}",
            why="voice prints of two models lie in two spaces: their cosines mean nothing",
            fix=f"glottis embed {checkpoint} FILES --out {store}",
        )
    sizes = chosen_sizes(dims, voices.dims)
    galleries = {size: Gallery(voices.dim(size)) for size in sizes}
    if shortlist is not None and len(galleries[sizes[-1]].dims) == 1:
        raise ConfigError(
            f"a shortlist with dim={sizes[-1]}, the smallest size",
            why="a shortlist is made with a smaller size than the one that decides",
            fix="leave --shortlist out, or choose a larger --dim",
        )
    thresholds = thresholds_of(card)
    queries = embed_files(checkpoint, files, dims="all", progress=progress)[-1]
    answers = []
    for size, gallery in galleries.items():
        shorter = shortlist if len(gallery.dims) > 1 else None  # the smallest size is all there is
        rows, scores = gallery.search(queries.matrix[:, :size], top, shorter)
        limit = thresholds.get(size)
        for index, file in enumerate(files):
            matches = tuple(
                Match(
                    str(gallery.utterances[row]),
                    float(score),
                    decide(score, limit, "same", "different"),
                )
                for row, score in zip(rows[index], scores[index], strict=True)
            )
            answers.append(Identification(str(file), size, limit, matches))
    return answers
