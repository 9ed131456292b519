"""The shared tiny corpus, for the tests of this room."""

from __future__ import annotations

import pytest

from glottis.synth import SynthCorpus
from helpers.synth import tiny_corpus


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SynthCorpus:
    return tiny_corpus(tmp_path_factory)
