from __future__ import annotations

from pathlib import Path

import pytest

from glottis.score import LIBRARY_DEFAULT, eer
from glottis.score.layouts import LAYOUTS
from helpers.golden_scores import CM_SETS, EER_SETS, split

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


@pytest.mark.parametrize("name", EER_SETS + CM_SETS)
def test_the_table_of_conventions_is_what_the_code_gives(shared: Path, name: str) -> None:
    target, nontarget = split(shared, name)
    ours, asvspoof, clovaai = (
        100 * eer(target, nontarget, convention).value
        for convention in ("crossing", "asvspoof", "clovaai")
    )
    row = (
        f"| `{name}` | {len(target):,} / {len(nontarget):,} | {ours:.3f} | {asvspoof:.3f} | "
        f"{asvspoof - ours:+.3f} | {clovaai:.3f} | {clovaai - ours:+.3f} |"
    )
    assert row in DOCUMENT.read_text().splitlines()


def test_every_layout_and_the_library_parameters_are_documented() -> None:
    text = DOCUMENT.read_text()
    assert all(f"| `{layout.name}` |" in text for layout in LAYOUTS)
    costs = LIBRARY_DEFAULT
    assert f"{costs.p_target:g} / {costs.p_nontarget:g} / {costs.p_spoof:g}" in text
