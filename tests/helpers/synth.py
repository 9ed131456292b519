"""A tiny synthetic corpus for any test that needs speech, made once per test session.

from helpers.synth import tiny_corpus

@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return tiny_corpus(tmp_path_factory)
"""

from __future__ import annotations

from pathlib import Path

import pytest

from glottis.synth import SynthCorpus, generate, tiny_config

_MADE: dict[Path, SynthCorpus] = {}


def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> SynthCorpus:
    """Twelve talkers, four bona fide clips of 1.5 s and some spoofed ones each; do not change it.

    The first call takes a few seconds; every later one, from whatever test file, returns the same.
    """
    base = tmp_path_factory.getbasetemp()
    if base not in _MADE:
        _MADE[base] = generate(base / "tiny-corpus", tiny_config())
    return _MADE[base]
