"""Figures as PNG files: detection error trade-off, score histogram, training curves.

Drawn with matplotlib's object interface on the Agg canvas: no display, no global state, the same
bytes for the same input.  Rates are fractions in the arguments and percent on the axes.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from scipy.special import ndtri

from glottis.errors import ResultError
from glottis.files import atomic_path
from glottis.score.eer import crossing
from glottis.score.rates import Rates, Sample, ladder

Classes = tuple[str, str]
SPEAKER_CLASSES: Classes = ("target", "non-target")
SPOOF_CLASSES: Classes = ("bona fide", "spoof")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Distinguishable with colour-blind eyes (Okabe and Ito)."""
STYLES = ("-", "--", "-.", ":")
PERCENT_TICKS = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90, 95, 98, 99)
QUANTITIES = {
    "loss": ("loss", 1.0),
    "eer": ("EER (%)", 100.0),
    "accuracy": ("accuracy (%)", 100.0),
    "grad_norm": ("gradient norm before clipping", 1.0),
    "rate": ("learning rate", 1.0),
    "clips_per_s": ("clips per second", 1.0),
    "data_wait": ("time waiting for data (%)", 100.0),
}
"""Last part of a metric's name -> label of its axis and the factor to its unit."""


def det_curve(
    path: str | Path,
    systems: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    title: str = "",
    classes: Classes = SPEAKER_CLASSES,
    captions: Mapping[str, str] | None = None,
) -> None:
    """Miss rate against false-accept rate on normal-deviate axes, one line per system.

    systems: name -> (scores of the first class, scores of the second).  The dot is the EER.
    captions: name -> what the legend says of a system in place of its EER.
    Source: A. Martin et al., "The DET curve in assessment of detection task performance",
    Eurospeech 1997.
    """
    if not systems:
        raise ResultError("there is no system to draw", fix="give at least one set of scores")
    figure, axes = _figure(6.4, 6.6 + 0.2 * len(systems))
    lowest, highest = 0.5, 0.5
    for index, (name, (first, second)) in enumerate(systems.items()):
        trials = ladder(first, second, names=classes)
        rates = Sample(trials.corners()).rates
        value, _ = crossing(rates)
        counts = f"{trials.sizes[0]:,} {classes[0]}, {trials.sizes[1]:,} {classes[1]}"
        shown = (captions or {}).get(name, f"EER {100 * value:.2f} %")
        outside = "" if 0 < value < 1 else "; the curve is beyond the frame"
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(
            *_deviates(rates, trials.sizes),
            color=colour,
            linestyle=STYLES[index // len(COLOURS) % len(STYLES)],
            linewidth=1.8,
            label=f"{name}: {shown} (n = {counts}{outside})",
        )
        if 0 < value < 1:
            axes.plot(ndtri(value), ndtri(value), "o", color=colour, markersize=6)
        lowest = min(lowest, max(value / 20, 1 / max(trials.sizes)))
        highest = max(highest, value)
    low = max((t for t in PERCENT_TICKS if t <= 100 * lowest), default=PERCENT_TICKS[0])
    high = min((t for t in PERCENT_TICKS if t >= 120 * highest), default=PERCENT_TICKS[-1])
    span = ndtri([low / 100, high / 100])
    ticks = [tick for tick in PERCENT_TICKS if low <= tick <= high]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ndtri(np.array(ticks) / 100), [f"{tick:g}" for tick in ticks])
        axis.set_minor_locator(NullLocator())
    axes.plot(span, span, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xlim(*span)
    axes.set_ylim(*span)
    axes.set_aspect("equal")
    axes.set_xlabel(f"{classes[1]} accepted (%)")
    axes.set_ylabel(f"{classes[0]} missed (%)")
    axes.set_title(_title(title or "Detection error trade-off", 60))
    figure.legend(loc="outside lower center", fontsize=9)
    _save(figure, path)


def score_histogram(
    path: str | Path,
    first: np.ndarray,
    second: np.ndarray,
    *,
    threshold: float | None = None,
    title: str = "",
    classes: Classes = SPEAKER_CLASSES,
    unit: str = "score",
) -> None:
    """Densities of the scores of the two classes, and the threshold if one is given."""
    groups = ladder(first, second, names=classes).scores
    figure, axes = _figure(7.2, 4.6)
    both = np.concatenate(groups)
    edges = np.histogram_bin_edges(both, bins=min(80, max(10, round(math.sqrt(len(both))))))
    for scores, name, colour in zip(groups, classes, COLOURS, strict=False):
        axes.hist(
            scores,
            bins=edges.tolist(),
            density=True,
            histtype="stepfilled",
            alpha=0.35,
            color=colour,
            edgecolor=colour,
            linewidth=1.4,
            label=f"{name} (n = {len(scores):,})",
        )
    if threshold is not None and math.isfinite(threshold):
        axes.axvline(threshold, color="0.2", linewidth=1.2, linestyle="--")
        miss = float((groups[0] < threshold).mean())
        accepted = float((groups[1] >= threshold).mean())
        axes.plot(
            [],
            [],
            color="0.2",
            linestyle="--",
            label=f"threshold {threshold:.3g}: {100 * miss:.1f} % missed, "
            f"{100 * accepted:.1f} % accepted",
        )
    axes.set_xlabel(unit)
    axes.set_ylabel("density")
    axes.set_title(_title(title or "Scores", 68))
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    _save(figure, path)


def training_curves(
    path: str | Path,
    records: Sequence[Mapping[str, Any]],
    *,
    x: str = "step",
    quantities: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """One panel per quantity over the course of a run, from the lines of its metrics file.

    records: ``{"step": 100, "train/loss": 3.2, "dev/eer": 0.12}``; a metric may be missing in some.
    quantities: last parts of metric names; None = those of `QUANTITIES` that occur.
    """
    lines = _by_quantity(records, x)
    wanted = [name for name in (quantities or QUANTITIES) if name in lines]
    if not wanted:
        raise ResultError(
            f"none of the {len(records)} records holds {', '.join(quantities or QUANTITIES)}",
            fix="has the run logged anything yet? see metrics.jsonl",
        )
    columns = 1 if len(wanted) == 1 else 2
    rows = -(-len(wanted) // columns)
    figure, _ = _figure(5.2 * columns, 3.1 * rows + 0.4, panels=(rows, columns))
    for axes, quantity in zip(figure.axes, wanted, strict=False):
        label, factor = QUANTITIES.get(quantity, (quantity, 1.0))
        for index, (name, points) in enumerate(lines[quantity].items()):
            positions, values = np.array(points).T
            axes.plot(
                positions,
                values * factor,
                color=COLOURS[index % len(COLOURS)],
                linewidth=1.4,
                marker="o" if len(points) <= 40 else "",
                markersize=3,
                label=f"{name} (last {values[-1] * factor:.4g})",
            )
        axes.set_xlabel(x)
        axes.set_ylabel(label)
        axes.legend(fontsize=8)
    for axes in figure.axes[len(wanted) :]:
        axes.set_visible(False)
    figure.suptitle(_title(title or "Training", 50 * columns))
    _save(figure, path)


def _by_quantity(
    records: Sequence[Mapping[str, Any]], x: str
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """quantity -> metric -> points; numbers that are not finite leave a gap."""
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in records:
        position = record.get(x)
        if position is None or not _is_number(position):
            continue
        for name, value in record.items():
            if name != x and _is_number(value):
                shown = float(value) if math.isfinite(value) else math.nan
                points = lines.setdefault(name.rsplit("/", 1)[-1], {}).setdefault(name, [])
                points.append((float(position), shown))
    return lines


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _deviates(rates: Rates, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Normal deviates of the rates; 0 and 1 (infinite) are drawn beyond the frame."""
    edge = 0.05 / max(sizes)
    false_accept = np.clip(rates.false_accept, edge, 1 - edge)
    miss = np.clip(rates.miss, edge, 1 - edge)
    return ndtri(false_accept), ndtri(miss)


def _title(text: str, width: int) -> str:
    """Lines that fit above the figure."""
    return "\n".join(textwrap.wrap(text, width))


def _figure(width: float, height: float, panels: tuple[int, int] = (1, 1)) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for index in range(panels[0] * panels[1]):
        axes = figure.add_subplot(*panels, index + 1)
        axes.grid(True, color="0.88", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure, figure.axes[0]


def _save(figure: Figure, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
