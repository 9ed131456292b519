"""What a model says about being the published one is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from glottis.models import MODELS
from glottis.models._parity import Parity
from glottis.models._registry import parity_of
from glottis.models.facts import Size, facts

TESTS = Path(__file__).resolve().parents[1] / "models"
UNITS = {"M": 1e6, "k": 1e3, "": 1.0}
# parameters of a list that are no part of the network: scale and shift of the GE2E loss
LOSS_SCALARS = {"ge2e": 2}

every_model = pytest.mark.parametrize("name", MODELS.names())


def names_with(status: str) -> list[str]:
    found = [(name, parity_of(name)) for name in MODELS.names()]
    return [name for name, parity in found if parity is not None and parity.status == status]


def stated(name: str) -> Parity:
    parity = parity_of(name)
    assert parity is not None, f'@register_model("{name}", ..., parity=golden(...) or ours(...))'
    return parity


def size_of(name: str) -> Size:
    size = facts(name).size
    if size is None:
        pytest.skip(f"needs the extra '{facts(name).needs}'")
    return size


@every_model
def test_a_model_says_what_shows_that_it_is_the_published_one(name: str) -> None:
    parity = stated(name)
    assert len(parity.evidence) > 10
    assert bool(parity.vectors) == (parity.status == "golden")
    assert bool(parity.published) == (parity.status == "published count")


@pytest.mark.parametrize("name", names_with("golden"))
def test_the_default_options_have_as_many_parameters_as_the_original(
    name: str, shared: Path
) -> None:
    table = shared / "golden" / "state_dicts" / f"{stated(name).vectors[0]}.tsv"
    count = 0
    for line in table.read_text().splitlines()[1:]:
        _, _, shape, _, kind, *_ = line.split("\t")
        if kind == "parameter":
            sizes = [] if shape == "scalar" else [int(axis) for axis in shape.split("x")]
            product = 1
            for axis in sizes:
                product *= axis
            count += product
    assert size_of(name).parameters == count - LOSS_SCALARS.get(name, 0)


@pytest.mark.parametrize("name", names_with("golden"))
def test_a_golden_model_is_compared_with_its_vectors(name: str, shared: Path) -> None:
    """There is a file of tests that reads each of the vectors and builds this model."""
    texts = [path.read_text(encoding="utf-8") for path in TESTS.glob("test_*_golden.py")]
    text = "\n".join(t for t in texts if re.search(rf'"{name}"', t))
    assert text, f"no test_*_golden.py speaks of {name}"
    for vectors in stated(name).vectors:
        assert (shared / "golden" / "state_dicts" / f"{vectors}.tsv").is_file()
        # tests put the name together of the group and the rest
        parts = [vectors, *(vectors.removeprefix(prefix) for prefix in PREFIXES)]
        assert any(re.search(rf'["_]{re.escape(part)}["_]', text) for part in parts), vectors


PREFIXES = ("importer_", "dim_", "vox_", "seresnet_", "redimnet_", "redimnet2_", "mrl_")


@pytest.mark.parametrize("name", names_with("published count"))
def test_the_count_is_the_published_one_to_its_last_digit(name: str) -> None:
    parity = stated(name)
    found = re.fullmatch(r"(\d+)(?:\.(\d+))?([Mk]?)", parity.published)
    assert found, "a number, then M or k"
    step = UNITS[found[3]] * 10 ** -len(found[2] or "")
    published = float(parity.published.rstrip("Mk")) * UNITS[found[3]]
    count = size_of(name).parameters + parity.extra
    assert abs(count - published) < max(step, 1)  # some tables round, some cut
