"""Noise at the signal-to-noise ratio that was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glottis.augment import AUGMENTATIONS, AugmentContext
from glottis.augment._additive import gain_for_snr
from glottis.augment.noise import Noise, NoiseConfig, NoiseParams
from glottis.config import build
from glottis.errors import ConfigError, DataError
from glottis.rng import generator, torch_generator


def noise(root: Path = Path("."), **options: object) -> Noise:
    return Noise(build(NoiseConfig, options), AugmentContext(16000, root, 1))


def measured_db(clean: Tensor, noisy: Tensor) -> Tensor:
    """(B,) from the waveforms alone, in float64."""
    clean, noisy = clean.double(), noisy.double()
    return 10 * torch.log10(clean.square().mean(1) / (noisy - clean).square().mean(1))


def speech(shared: Path, count: int, samples: int) -> Tensor:
    files = sorted((shared / "speech" / "bonafide").glob("LS*/*/*.flac"))[:count]
    clips = [soundfile.read(file, dtype="float32")[0] for file in files]
    return torch.from_numpy(np.stack([np.resize(clip, samples) for clip in clips]))


@pytest.fixture(scope="module")
def simulated() -> Noise:
    return noise(snr_db=(-5.0, 40.0))


def test_measured_ratio_is_the_drawn_one_on_simulated_noise(simulated: Noise) -> None:
    wave = 0.05 * torch.randn(64, 8000, generator=torch_generator(1))
    params = [simulated.sample(generator(1, i), 8000) for i in range(64)]
    asked = torch.tensor([p.snr_db for p in params], dtype=torch.float64)
    assert asked.min() < 0.0
    assert asked.max() > 35.0
    assert (measured_db(wave, simulated.apply(wave, params)) - asked).abs().max() < 0.1


def test_measured_ratio_is_the_drawn_one_on_real_speech_and_noise(shared: Path) -> None:
    kinds = ("noise", "event", "music", "babble")
    augmentation = noise(shared / "speech", source="noise_rir.csv", kinds=kinds, snr_db=(0.0, 20.0))
    wave = speech(shared, 64, 32000)
    params = [augmentation.draw(generator(2, i), 32000) for i in range(64)]
    assert len({augmentation.bank.kinds[p.clip] for p in params if p}) == 4
    asked = torch.tensor([p.snr_db for p in params if p], dtype=torch.float64)
    noisy = augmentation.apply(wave, params)
    assert (measured_db(wave, noisy) - asked).abs().max() < 0.1
    assert augmentation.counts() == {"silent": 0}


def test_ratio_is_of_powers_and_not_of_norms_taken_as_powers(simulated: Noise) -> None:
    """The known mistake: 10 ** (dB / 10) applied to norms makes 20 dB sound like 40 dB."""
    wave = torch.sin(torch.arange(16000.0))[None]
    noisy = simulated.apply(wave, [NoiseParams(0, 0, 20.0)])
    assert float((noisy - wave).norm() / wave.norm()) == pytest.approx(0.1, rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    snr_db=st.floats(-20.0, 60.0),
    level_db=st.floats(-70.0, 10.0),
    noise_db=st.floats(-70.0, 10.0),
    samples=st.integers(2, 3000),
)
def test_gain_reaches_any_ratio_from_any_levels(
    snr_db: float, level_db: float, noise_db: float, samples: int
) -> None:
    wave = 10 ** (level_db / 20) * torch.randn(1, samples, generator=torch_generator(3))
    other = 10 ** (noise_db / 20) * torch.randn(1, samples, generator=torch_generator(4))
    gain, silent = gain_for_snr(wave, other, torch.tensor([[snr_db]]))
    assert not silent.any()
    reached = 20 * torch.log10(wave.norm() / (gain * other).norm())
    assert float(reached) == pytest.approx(snr_db, abs=1e-3)


def test_silent_speech_and_silent_noise_are_counted_and_left_alone() -> None:
    augmentation = noise(kinds=("noise white",))
    bank = augmentation.bank
    bank.samples[: bank.lengths[0]] = 0  # the whole first clip
    wave = torch.stack([torch.zeros(4000), torch.ones(4000) * 0.1, torch.ones(4000) * 0.1])
    params = [NoiseParams(1, 0, 5.0), NoiseParams(0, 0, 5.0), NoiseParams(1, 0, 5.0)]
    noisy = augmentation.apply(wave, params)
    assert torch.equal(noisy[:2], wave[:2])
    assert not torch.equal(noisy[2], wave[2])
    assert augmentation.counts() == {"silent": 2}


def test_ratios_and_clips_are_uniform(simulated: Noise) -> None:
    params = [simulated.sample(generator(5, i), 8000) for i in range(2000)]
    ratios = np.array([p.snr_db for p in params])
    assert abs(ratios.mean() - 17.5) < 5 * 45.0 / np.sqrt(12 * 2000)
    counts = np.bincount([p.clip for p in params], minlength=len(simulated.bank))
    expected = 2000 / len(simulated.bank)
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


@settings(max_examples=50, deadline=None)
@given(samples=st.integers(1, 200_000), seed=st.integers(0, 2**32))
def test_excerpts_of_long_clips_never_wrap(simulated: Noise, samples: int, seed: int) -> None:
    drawn = simulated.sample(generator(seed), samples)
    length = simulated.bank.lengths[drawn.clip]
    assert 0 <= drawn.start < length
    assert drawn.start + samples <= length or samples >= length


def test_kinds_choose_what_is_simulated() -> None:
    assert set(noise(kinds=("noise hum", "music")).bank.kinds) == {"noise hum", "music"}
    with pytest.raises(DataError, match="no simulated noise of kind thunder"):
        noise(kinds=("thunder",))


def test_impulse_responses_are_refused_as_noise(shared: Path) -> None:
    with pytest.raises(DataError, match=r"36 of the 92 sounds.*impulse responses"):
        noise(shared / "speech", source="noise_rir.csv")


def test_reversed_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a range is \[low, high\]"):
        AUGMENTATIONS.config("noise", snr_db=[15.0, 0.0])


def test_card_names_the_material_and_its_hash(simulated: Noise) -> None:
    card = simulated.card()
    assert card["source"] == "simulated"
    assert card["clips"] == 28
    assert len(card["sha256_16"]) == 16
    assert noise(kinds=("music",)).card()["sha256_16"] != card["sha256_16"]
