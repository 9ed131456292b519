"""Every size of a Matryoshka embedding on one list, each beside the whole embedding.

The ratios are paired: every draw of the bootstrap weights the trials of both sizes alike.
Shapes: U utterances, D embedding, N trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from glottis.data import Trials
from glottis.score._checks import Names
from glottis.score.compare import compare
from glottis.score.cosine import score_trials
from glottis.score.embeddings import Embeddings
from glottis.score.intervals import Measured
from glottis.score.metrics import speaker_metrics
from glottis.score.parts import Part, Resampled, per_item
from glottis.score.results import Cell
from glottis.score.voices import trial_voices

CONDITION = "dim"
_SHOWN = ("eer", "min_dcf_0.01", "min_dcf_0.05")


def dimension_cells(
    embeddings: Embeddings,
    trials: Trials,
    speakers: Names | None,
    dims: Sequence[int],
    how: Resampled | None = None,
) -> tuple[Cell, ...]:
    """A row for each of ``dims``: EER, minDCF, and the EER over that of the whole embedding.

    speakers: (U,) speaker of each of ``trials.keys``, or None.
    """
    how = how or Resampled()
    is_target = trials.target
    voices = None
    if speakers is not None:
        names = per_item(speakers, len(trials.keys), "speakers")
        voices = trial_voices(is_target, names[trials.enrol], names[trials.test])
    metrics = {name: speaker_metrics()[name] for name in _SHOWN}
    whole = score_trials(embeddings, trials)
    cells = []
    for size in dims:
        scores = whole
        if size < embeddings.matrix.shape[1]:
            scores = score_trials(embeddings.dim(size), trials)
        part = Part(np.asarray(scores, np.float64), is_target, voices, ("targets", "nontargets"))
        cell = part.cell(CONDITION, str(size), metrics, how)
        if cell.metrics and scores is not whole:
            found = compare(
                whole, scores, is_target, voices, {"eer": metrics["eer"]},
                seed=how.seed, draws=how.draws,
            )["eer"]  # fmt: skip
            ratio = Measured(
                found.ratio, found.ratio_low, found.ratio_high, part.n, found.method, how.run_id
            )
            cell = replace(cell, metrics={**cell.metrics, "eer_ratio": ratio})
        cells.append(cell)
    return tuple(cells)
