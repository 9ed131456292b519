"""Several talkers at the signal-to-noise ratio that was drawn."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from glottis.augment import AugmentContext
from glottis.augment.babble import Babble, BabbleConfig, BabbleParams
from glottis.config import build
from glottis.errors import ConfigError, DataError
from glottis.rng import generator, torch_generator


def babble(root: Path = Path("."), **options: object) -> Babble:
    return Babble(build(BabbleConfig, options), AugmentContext(16000, root, 1))


@pytest.fixture(scope="module")
def simulated() -> Babble:
    return babble()


def test_measured_ratio_is_the_drawn_one(simulated: Babble) -> None:
    wave = 0.05 * torch.randn(16, 8000, generator=torch_generator(1))
    params = [simulated.sample(generator(1, i), 8000) for i in range(16)]
    added = (simulated.apply(wave, params) - wave).double()
    measured = 10 * torch.log10(wave.double().square().mean(1) / added.square().mean(1))
    asked = torch.tensor([p.snr_db for p in params], dtype=torch.float64)
    assert (measured - asked).abs().max() < 0.1


def test_number_of_talkers_covers_the_range_and_none_speaks_twice(simulated: Babble) -> None:
    params = [simulated.sample(generator(2, i), 8000) for i in range(300)]
    assert {len(p.clips) for p in params} == {3, 4, 5, 6, 7}
    for drawn in params:
        talkers = {simulated.bank.groups[clip] for clip in drawn.clips}
        assert len(talkers) == len(drawn.clips) == len(drawn.starts)


def test_talkers_are_equally_loud(simulated: Babble) -> None:
    wave = 0.05 * torch.randn(1, 8000, generator=torch_generator(3))
    pair = simulated.apply(wave, [BabbleParams((0, 1), (0, 0), 0.0)]) - wave
    voices = simulated.bank.excerpts([0, 1], [0, 0], 8000)
    solution = torch.linalg.lstsq(voices.T.double(), pair.T.double()).solution.flatten()
    levels = solution * voices.double().square().mean(1).sqrt()
    assert float(levels[0]) == pytest.approx(float(levels[1]), rel=1e-3)


def test_only_bona_fide_speech_of_the_training_split_is_heard(shared: Path) -> None:
    augmentation = babble(shared / "speech", source="manifest.csv", bank_seconds=60.0)
    assert len(augmentation.members) >= 7
    heard = set(augmentation.bank.groups)
    with (shared / "speech" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "bonafide"]
    assert heard <= {row["speaker"] for row in rows if row["split"] == "train"}
    assert not heard & {row["speaker"] for row in rows if row["split"] != "train"}
    assert sum(augmentation.bank.lengths) / 16000 < 70.0


def test_too_few_talkers_are_refused() -> None:
    with pytest.raises(DataError, match="has 24 talkers, babble asks for up to 30"):
        babble(talkers=[3, 30])
    with pytest.raises(ConfigError, match="is not a range"):
        babble(talkers=[5, 2])
