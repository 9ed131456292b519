"""Score files in the layouts that other toolkits read; written whole or not at all.

Numbers are written with as many digits as give the same float32 (or float64) back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from glottis.data import Protocol, Trials
from glottis.errors import ConfigError, ResultError
from glottis.files import atomic_path

CmLayout = Literal["asvspoof2019", "asvspoof2021", "asvspoof5"]
Scores = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def write_trial_scores(path: str | Path, trials: Trials, scores: Scores) -> None:
    """``enrol test score``, one line per trial, in the order of the list."""
    _same_length(scores, len(trials))
    _write(path, [trials.enrol_keys, trials.test_keys, scores])


def write_cm_scores(
    path: str | Path, protocol: Protocol, scores: Scores, layout: CmLayout = "asvspoof2019"
) -> None:
    """Scores of a countermeasure, in the order of the protocol.

    asvspoof2019: ``utterance attack key score``; asvspoof2021: ``utterance score``; asvspoof5: TSV
    with the header ``filename cm-score``.
    """
    _same_length(scores, len(protocol))
    if layout == "asvspoof2019":
        attack = np.where(protocol.attack == "", "-", protocol.attack)
        _write(path, [protocol.utterance, attack, protocol.label, scores])
    elif layout == "asvspoof2021":
        _write(path, [protocol.utterance, scores])
    elif layout == "asvspoof5":
        _write(path, [protocol.utterance, scores], separator="\t", header="filename\tcm-score")
    else:
        known = ", ".join(get_args(CmLayout))
        raise ConfigError(f"there is no score layout '{layout}'", fix=f"known: {known}")


def _same_length(scores: Scores, count: int) -> None:
    if np.shape(scores) != (count,):
        raise ResultError(
            f"{np.size(scores)} scores for {count} trials",
            why="a score file with gaps is another list",
            rule="E1",
        )


def _write(
    path: str | Path,
    columns: list[npt.NDArray[np.generic]],
    separator: str = " ",
    header: str = "",
) -> None:
    text = pa.large_string()
    cells = [
        pc.cast(pa.array(column), text)
        if column.dtype.kind == "f"
        else pa.array(column.tolist(), text)
        for column in columns
    ]
    rows = pc.binary_join_element_wise(*cells, pa.scalar(separator, text)).to_pylist()
    lines = [header, *rows] if header else rows
    with atomic_path(Path(path)) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
