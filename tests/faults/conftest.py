"""One laboratory for the scenarios of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.faults import Lab, make_lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A corpus, and a warm process that forks the runs."""
    made = make_lab(tmp_path_factory.mktemp("faults"))
    yield made
    made.close()
