"""What the rebuilt reports share: the corpus of tones, and torch as it was before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers.tones import write_corpus


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of tones; tests that need another one write their own."""
    return write_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture(autouse=True)
def _deterministic_off() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
