"""One tiny corpus and three tiny runs for all tests of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import soundfile
import yaml

from helpers.cli import succeeds
from helpers.tones import RATE, speaker_tree, spoof_tree, tone, write_corpus

SHORT = {"train__steps": 2, "evaluate__every_steps": 2, "checkpoint__every_steps": 1}


@dataclass(frozen=True)
class Bench:
    """corpus: tones with lists.  speaker, spoof: finished runs of two steps, with their recipes.

    same, other: two clips of one development speaker, and one of another.
    """

    root: Path
    corpus: Path
    speaker: Path
    spoof: Path
    speaker_recipe: Path
    spoof_recipe: Path

    @property
    def same(self) -> tuple[Path, Path]:
        return self.corpus / "s06_0_bonafide.wav", self.corpus / "s06_1_bonafide.wav"

    @property
    def other(self) -> Path:
        return self.corpus / "s07_0_bonafide.wav"


def write_recipe(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Do not change what is in it."""
    root = tmp_path_factory.mktemp("bench")
    corpus = write_corpus(root / "corpus")
    speaker = write_recipe(root / "speaker.yaml", speaker_tree(corpus, **SHORT))
    spoof = write_recipe(root / "spoof.yaml", spoof_tree(corpus, **SHORT))
    made = Bench(root, corpus, root / "runs/speaker", root / "runs/spoof", speaker, spoof)
    succeeds("train", speaker, "--out", made.speaker)
    succeeds("train", spoof, "--out", made.spoof)
    return made


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sixteen speakers with four clips each, as a user has it."""
    root = tmp_path_factory.mktemp("my voices")
    for speaker in range(16):
        folder = root / f"person{speaker:02d}"
        folder.mkdir()
        for clip in range(4):
            soundfile.write(folder / f"{clip}.wav", tone(1, speaker, clip, 0.8, False), RATE)
    return root
