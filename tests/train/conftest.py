"""What the tests of training share: a tiny corpus, and torch as it was before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers.tones import write_corpus


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of tones; tests that change it write their own."""
    return write_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture(autouse=True)
def _torch_flags() -> Iterator[None]:
    backends = torch.backends
    saved = (
        backends.cudnn.benchmark,
        backends.cudnn.deterministic,
        backends.cudnn.allow_tf32,
        backends.cuda.matmul.allow_tf32,
        torch.get_num_threads(),
    )
    yield
    torch.use_deterministic_algorithms(False)
    backends.cudnn.benchmark, backends.cudnn.deterministic = saved[0], saved[1]
    backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = saved[2], saved[3]
    torch.set_num_threads(saved[4])
