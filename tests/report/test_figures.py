from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtri

from glottis.errors import ResultError
from glottis.report import figures
from glottis.report.figures import SPOOF_CLASSES, det_curve, score_histogram, training_curves

RNG = np.random.default_rng(0)
TARGET, NONTARGET = RNG.normal(2, 1, 300), RNG.normal(0, 1, 500)
RECORDS: list[dict[str, Any]] = [
    {"step": step, "train/loss": 8 - step / 20, "train/rate": 1e-3, "note": "text"}
    | ({"dev/eer": 0.5 - step / 250} if step % 50 == 0 else {})
    for step in range(10, 110, 10)
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would have been saved."""
    kept: list[Any] = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure))
    return kept


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    return int(width), int(height)


def test_all_figures_are_png_files_of_a_legible_size(tmp_path: Path) -> None:
    det_curve(tmp_path / "new" / "det.png", {"ours": (TARGET, NONTARGET)})
    score_histogram(tmp_path / "hist.png", TARGET, NONTARGET, threshold=1.0)
    training_curves(tmp_path / "curves.png", RECORDS)
    for name in ("new/det.png", "hist.png", "curves.png"):
        width, height = png_size(tmp_path / name)
        assert width > 600
        assert height > 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "hist.png", "new"]


def test_the_same_scores_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        det_curve(tmp_path / name, {"ours": (TARGET, NONTARGET)})
    det_curve(tmp_path / "c.png", {"ours": (TARGET, NONTARGET + 0.5)})
    first, second, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert first == second != other


def test_no_global_figure_is_made(tmp_path: Path) -> None:
    """pyplot keeps figures alive and needs a backend; nothing here may load it."""
    det_curve(tmp_path / "det.png", {"ours": (TARGET, NONTARGET)})
    assert "matplotlib.pyplot" not in sys.modules


def test_det_axes_are_normal_deviates_in_percent_with_counts(drawn: list[Any]) -> None:
    det_curve("x.png", {"ours": (TARGET, NONTARGET)}, classes=SPOOF_CLASSES, title="dev")
    axes = drawn[0].axes[0]
    assert axes.get_xlabel() == "spoof accepted (%)"
    assert axes.get_ylabel() == "bona fide missed (%)"
    assert axes.get_title() == "dev"
    positions, labels = axes.get_xticks(), [text.get_text() for text in axes.get_xticklabels()]
    assert positions[labels.index("10")] == pytest.approx(ndtri(0.1))
    [text] = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert "n = 300 bona fide, 500 spoof" in text
    assert "EER" in text


def test_a_caption_takes_the_place_of_the_number(drawn: list[Any]) -> None:
    systems = {"a": (TARGET, NONTARGET), "b": (TARGET + 50, NONTARGET)}
    det_curve("x.png", systems, captions={"a": "only n: 4 voices"})
    first, second = (text.get_text() for text in drawn[0].legends[0].get_texts())
    assert first == "a: only n: 4 voices (n = 300 target, 500 non-target)"
    assert second.startswith("b: EER 0.00 % (n = ")
    assert "the curve is beyond the frame" in second


def test_a_long_title_is_broken_into_lines(drawn: list[Any]) -> None:
    det_curve("x.png", {"ours": (TARGET, NONTARGET)}, title="a list with a long name " * 5)
    lines = drawn[0].axes[0].get_title().splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 60


def test_det_of_gaussians_is_the_straight_line_of_theory(drawn: list[Any]) -> None:
    """Two unit-variance Gaussians d apart: deviate of miss = -d - deviate of false accept."""
    grid = ndtri((np.arange(20000) + 0.5) / 20000)
    det_curve("x.png", {"theory": (grid + 2, grid)})
    x, y = drawn[0].axes[0].lines[0].get_data()
    inside = (np.abs(x) < 2) & (np.abs(y) < 2)
    assert inside.sum() > 1000
    assert np.max(np.abs(x[inside] + y[inside] + 2)) < 0.01


def test_the_eer_point_lies_on_the_diagonal_of_its_curve(drawn: list[Any]) -> None:
    det_curve("x.png", {"ours": (TARGET, NONTARGET)})
    curve, dot = drawn[0].axes[0].lines[:2]
    [[x], [y]] = dot.get_data()
    assert x == y
    assert np.min(np.hypot(curve.get_xdata() - x, curve.get_ydata() - y)) < 0.1


@pytest.mark.parametrize("gap", [-1.0, 0.0, 30.0])
def test_det_of_inverted_useless_and_perfect_scores_can_be_drawn(
    tmp_path: Path, gap: float
) -> None:
    det_curve(tmp_path / "det.png", {"odd": (NONTARGET + gap, NONTARGET)})
    assert png_size(tmp_path / "det.png")[0] > 600


def test_many_systems_are_told_apart_by_colour_and_line(drawn: list[Any]) -> None:
    det_curve("x.png", {f"s{i}": (TARGET + i, NONTARGET) for i in range(9)})
    lines = [line for line in drawn[0].axes[0].lines if line.get_label().startswith("s")]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 9


def test_the_histogram_states_counts_and_errors_at_the_threshold(drawn: list[Any]) -> None:
    score_histogram("x.png", TARGET, NONTARGET, threshold=1.0, unit="cosine")
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    miss = 100 * np.mean(TARGET < 1.0)
    assert texts[0] == "target (n = 300)"
    assert texts[1] == "non-target (n = 500)"
    assert f"{miss:.1f} % missed" in texts[2]
    assert drawn[0].axes[0].get_xlabel() == "cosine"


def test_curves_have_one_panel_per_quantity_in_its_unit(drawn: list[Any]) -> None:
    training_curves("x.png", RECORDS)
    panels = [axes for axes in drawn[0].axes if axes.get_visible()]
    assert [axes.get_ylabel() for axes in panels] == ["loss", "EER (%)", "learning rate"]
    eer_line = panels[1].lines[0]
    assert eer_line.get_xdata().tolist() == [50.0, 100.0]
    assert eer_line.get_ydata() == pytest.approx([30.0, 10.0])


def test_losses_of_two_sets_share_a_panel_and_gaps_stay_gaps(drawn: list[Any]) -> None:
    records = [{"step": i, "train/loss": 1.0, "dev_seen/loss": 2.0} for i in range(4)]
    records[2]["train/loss"] = float("nan")
    training_curves("x.png", records, quantities=["loss"])
    lines = drawn[0].axes[0].lines
    assert len(lines) == 2
    assert np.isnan(lines[0].get_ydata()).tolist() == [False, False, True, False]


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ResultError, match="no system"):
        det_curve("x.png", {})
    with pytest.raises(ResultError, match="none of the 1 records holds loss"):
        training_curves("x.png", [{"step": 1}])
    with pytest.raises(ResultError, match="no spoof scores"):
        det_curve("x.png", {"a": (TARGET, np.array([]))}, classes=SPOOF_CLASSES)
