"""Fixtures for every test: where the reference material is, and quiet, repeatable torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def shared_folder() -> Path:
    """The folder of reference material: GLOTTIS_SHARED, else ``../shared`` beside the checkout."""
    return Path(os.environ.get("GLOTTIS_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference vectors and real speech; without them the test is skipped (in CI it fails)."""
    folder = shared_folder()
    if not (folder / "golden" / "README.md").exists():
        reason = f"no reference material at {folder} (set GLOTTIS_SHARED)"
        if os.environ.get("GLOTTIS_REQUIRE_SHARED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(autouse=True)
def _one_thread_setting() -> None:
    """Two threads at most: tests run beside each other on small machines."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
