"""Speed: against soxr, lengths, labels."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glottis.augment import AugmentContext
from glottis.augment._sinc import Resampler
from glottis.augment.speed import Speed, SpeedConfig, SpeedParams
from glottis.config import build
from glottis.errors import ConfigError
from glottis.rng import generator, torch_generator


def speed(**options: object) -> Speed:
    return Speed(build(SpeedConfig, options), AugmentContext())


def read_and_apply(augmentation: Speed, clip: torch.Tensor, params: SpeedParams) -> torch.Tensor:
    """One clip as the worker reads it and the device changes it."""
    needed = augmentation.source_samples(params, params.num_samples)
    return augmentation.apply(clip[None, :needed], [params])[0]


@pytest.mark.parametrize("factor", [0.9, 0.95, 1.1, 1.25])
def test_equals_soxr_on_speech(shared: Path, factor: float) -> None:
    file = min((shared / "speech" / "bonafide").glob("LS103/*/*.flac"))
    clip = soundfile.read(file, dtype="float32")[0]
    clip = soxr.resample(soxr.resample(clip, 16000, 9000), 9000, 16000)  # below both filters' edges
    augmentation = speed(factors=(factor,))
    ours = read_and_apply(augmentation, torch.from_numpy(clip), SpeedParams(factor, 24000, 0))
    reference = soxr.resample(clip.astype(np.float64), factor * 16000, 16000, "VHQ")[:24000]
    inside = slice(200, -200)  # soxr saw the whole clip, we only what the crop needs
    error = ours.numpy()[inside] - reference[inside]
    ratio = 10 * np.log10(np.mean(reference[inside] ** 2) / np.mean(error**2))
    assert ratio > 60.0


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_tone_moves_by_the_factor_and_keeps_its_level(factor: float) -> None:
    time = torch.arange(20000, dtype=torch.float64) / 16000
    tone = torch.sin(2 * torch.pi * 1000.0 * time).float()
    ours = read_and_apply(speed(), tone, SpeedParams(factor, 16000, 0)).double()
    expected = torch.sin(2 * torch.pi * 1000.0 * factor * time[:16000])
    assert (ours - expected)[200:-200].abs().max() < 1e-4


def test_frequencies_that_would_fold_back_are_removed() -> None:
    time = torch.arange(20000, dtype=torch.float64) / 16000
    tone = torch.sin(2 * torch.pi * 7800.0 * time).float()  # 1.1 times as high: above Nyquist
    ours = read_and_apply(speed(), tone, SpeedParams(1.1, 16000, 0))
    assert ours[200:-200].abs().max() < 1e-3


@settings(max_examples=60, deadline=None)
@given(percent=st.integers(50, 200), samples=st.integers(1, 5000), extra=st.integers(0, 50))
def test_every_factor_and_length_gives_exactly_the_samples_asked_for(
    percent: int, samples: int, extra: int
) -> None:
    augmentation = speed(factors=(percent / 100,))
    params = augmentation.sample(generator(percent), samples)
    needed = augmentation.source_samples(params, samples)
    assert needed == -(-samples * Fraction(percent, 100) // 1)
    changed = augmentation.apply(torch.ones(1, needed + extra), [params])
    assert changed.shape == (1, samples + extra if percent == 100 else samples)


@settings(max_examples=30, deadline=None)
@given(
    down=st.integers(1, 12),
    up=st.integers(1, 12),
    samples=st.integers(1, 300),
    num_out=st.integers(1, 300),
)
def test_convolution_equals_the_sum_over_sincs(
    down: int, up: int, samples: int, num_out: int
) -> None:
    step = Fraction(down, up)
    resampler = Resampler(step)
    wave = torch.randn(2, samples, generator=torch_generator(samples))
    kernel = resampler.kernel[:, 0].numpy()
    padded = np.pad(wave.numpy(), ((0, 0), (10_000, 10_000)))
    expected = np.zeros((2, num_out))
    for n in range(num_out):
        block, phase = divmod(n, step.denominator)
        begin = 10_000 + block * step.numerator - resampler.reach
        expected[:, n] = padded[:, begin : begin + kernel.shape[1]] @ kernel[phase]
    assert np.abs(resampler(wave, num_out).numpy() - expected).max() < 1e-5


def test_padding_behind_a_shorter_source_is_not_heard() -> None:
    augmentation = speed()
    slow, fast = SpeedParams(0.9, 4000, 0), SpeedParams(1.1, 4000, 0)
    wave = torch.randn(3, 4400, generator=torch_generator(7))
    loud = wave.clone()
    loud[0, 3600:], loud[1, 4000:] = 100.0, 100.0
    params = [slow, None, fast]
    assert torch.equal(augmentation.apply(loud, params), augmentation.apply(wave, params))


def test_factors_are_equally_likely_and_one_is_no_change() -> None:
    augmentation = speed()
    drawn = [augmentation.draw(generator(1, i), 4000) for i in range(900)]
    counts = [sum((p.factor if p else 1.0) == f for p in drawn) for f in (0.9, 1.0, 1.1)]
    assert all(abs(count - 300) < 5 * np.sqrt(900 * 2 / 9) for count in counts)
    assert all(p is None or p.factor != 1.0 for p in drawn)


def test_new_speakers_get_blocks_of_their_own_behind_the_real_ones() -> None:
    augmentation = speed(as_new_speakers=True)
    assert augmentation.label_copies == 3
    drawn = {p.factor: p for p in (augmentation.draw(generator(1, i), 10) for i in range(50)) if p}
    assert augmentation.label_offset(None) == 0
    assert augmentation.label_offset(drawn[0.9]) == 1
    assert augmentation.label_offset(drawn[1.1]) == 2


def test_without_new_speakers_labels_stay() -> None:
    augmentation = speed()
    assert augmentation.label_copies == 1
    assert {augmentation.label_offset(augmentation.draw(generator(i), 9)) for i in range(20)} == {0}


def test_settings_that_lose_the_real_speakers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"without the factor 1\.0"):
        speed(factors=(0.9, 1.1), as_new_speakers=True)
    with pytest.raises(ConfigError, match=r"0\.5 to 2\.0"):
        speed(factors=(0.9, 3.0))
    for factors in ((0.9, 0.9), (0.9, 0.9004), (1.0, 1.001)):
        with pytest.raises(ConfigError, match=r"different numbers .* two decimals"):
            speed(factors=factors)
