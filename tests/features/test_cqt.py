"""The constant-Q transform against its definition, tones, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from glottis.errors import ConfigError
from glottis.features import FEATURES, FrontEnd, build_features
from glottis.rng import generator, torch_generator

Array = NDArray[np.float64]
ENERGY = {"log": "none", "log_floor": 0.0, "dynamic_range_db": None, "db_reference": "one"}
C1 = 440.0 * 2.0 ** (-45 / 12)


def cqt(**options: object) -> FrontEnd:
    return build_features(FEATURES.config("cqt", **options))


def energies(**options: object) -> FrontEnd:
    return cqt(**{**ENERGY, **options})


def noise(samples: int) -> NDArray[np.float32]:
    return (generator(1, "cqt", samples).standard_normal(samples) * 0.1).astype(np.float32)


def tone(hz: float, samples: int = 32_000, level: float = 0.1) -> Tensor:
    return (level * torch.sin(2 * torch.pi * hz * torch.arange(samples) / 16_000))[None].float()


def by_definition(wave: Array, hop: int, bins: range, per_octave: int, low_hz: float) -> Array:
    """Squared magnitudes, bin by bin and frame by frame: Brown (1991) in float64, Hann window."""
    quality = 1.0 / (2.0 ** (1.0 / per_octave) - 1.0)
    result = np.zeros((len(bins), len(wave) // hop + 1))
    for row, k in enumerate(bins):
        hz = low_hz * 2.0 ** (k / per_octave)
        length = quality * 16_000 / hz
        n = np.arange(-int(length / 2), int(length / 2) + 1)
        n = n[np.abs(n) < length / 2]
        window = 0.5 + 0.5 * np.cos(2 * np.pi * n / length)
        kernel = window / window.sum() * np.exp(-2j * np.pi * hz * n / 16_000)
        for t in range(result.shape[1]):
            at = t * hop + n
            heard = np.where((at >= 0) & (at < len(wave)), wave[np.clip(at, 0, len(wave) - 1)], 0)
            result[row, t] = np.abs((heard * kernel).sum()) ** 2
    return result


@pytest.mark.parametrize("hop", [512, 160, 441])
def test_default_bins_equal_the_definition(hop: int) -> None:
    wave, bins = noise(10_000), range(0, 84, 5)
    expected = by_definition(wave.astype(np.float64), hop, bins, 12, C1)
    found = energies(hop_samples=hop, scale="tone")(torch.from_numpy(wave)[None])[0].numpy()
    assert found.shape == (84, 10_000 // hop + 1)
    found = found[list(bins)]
    assert np.abs(found - expected).max() < 2e-6 * expected.max()
    assert np.abs(10 * np.log10(found / expected)).max() < 0.005  # decibel, in every single value
    exact = energies(hop_samples=hop, scale="tone", precision="double")
    found = exact(torch.from_numpy(wave)[None])[0].numpy()[list(bins)]
    assert np.abs(10 * np.log10(found / expected)).max() < 1e-5


def test_other_divisions_of_the_octave_equal_the_definition() -> None:
    wave = noise(6_000)
    options = {"num_bins": 41, "bins_per_octave": 24, "low_hz": 200.0, "hop_samples": 256}
    expected = by_definition(wave.astype(np.float64), 256, range(41), 24, 200.0)
    found = energies(**options, scale="tone")(torch.from_numpy(wave)[None])[0].numpy()
    assert np.abs(found - expected).max() < 2e-6 * expected.max()


@pytest.mark.parametrize("k", [0, 11, 12, 36, 59, 83])
def test_a_tone_is_loudest_in_the_bin_of_its_frequency(k: int) -> None:
    hz = C1 * 2.0 ** (k / 12)
    middle = cqt()(tone(hz))[0, :, 31]
    assert int(middle.argmax()) == k
    # two semitones away: beyond the main lobe of the Hann window, at most its second side lobe
    far = [j for j in range(84) if abs(j - k) > 2]
    assert float(middle[far].max()) < -30.0


def test_a_tone_reads_half_its_amplitude_in_every_bin() -> None:
    module = energies(scale="tone")
    for k in (12, 40, 83):
        peak = module(tone(C1 * 2.0 ** (k / 12)))[0, k, 31]
        assert float(peak.sqrt()) == pytest.approx(0.05, rel=2e-3)


def test_white_noise_is_level_in_every_bin() -> None:
    wave = torch.randn(1, 160_000, generator=torch_generator(3))
    level = energies(hop_samples=2000)(wave)[0].mean(-1)
    # sum of w^2 over (sum of w)^2 is 1.5 / N for a Hann window
    octaves = level.view(7, 12).mean(1)[1:]
    assert torch.allclose(octaves, torch.full((6,), 1.5), rtol=0.25)
    by_tone = energies(hop_samples=2000, scale="tone")(wave)[0].mean(-1)
    assert float(by_tone[72:].mean() / by_tone[12:24].mean()) > 20.0  # 5 octaves: 32 times


def test_an_octave_up_is_the_same_picture_twelve_bins_higher() -> None:
    # x(2 t) is an octave up; its kernels are half as long, so that bin k + 12 at time t hears what
    # bin k heard at 2 t
    time = np.arange(32_000) / 16_000

    def glide(seconds: Array) -> Array:
        return 0.1 * np.sin(2 * np.pi * (150.0 * seconds + 40.0 * seconds**2))

    low, high = glide(time).astype(np.float32), glide(2 * time).astype(np.float32)[:16_000]
    slow = energies(scale="tone", hop_samples=512)(torch.from_numpy(low)[None])[0]
    fast = energies(scale="tone", hop_samples=256)(torch.from_numpy(high)[None])[0]
    difference = (fast[24:, :] - slow[12:-12, :])[:, 8:-8].abs().max()
    assert float(difference) < 1e-3 * float(slow.max())


def test_default_is_decibel_below_the_loudest_value_within_eighty() -> None:
    features = cqt()(torch.from_numpy(noise(16_000))[None])
    assert float(features.max()) == 0.0
    quiet = cqt()(tone(1000.0))
    assert float(quiet.min()) == -80.0
    assert torch.equal(cqt()(torch.zeros(1, 4_000)), torch.zeros(1, 84, 8))


def test_longer_windows_are_narrower() -> None:
    hz = C1 * 2.0 ** (60 / 12)
    one, two = (cqt(window_scale=scale)(tone(hz))[0, :, 31] for scale in (1.0, 2.0))
    assert float(two[61]) < float(one[61]) - 10.0
    assert int(two.argmax()) == 60


def test_a_clip_shorter_than_the_longest_window_is_heard_with_zeros_around_it() -> None:
    wave = torch.from_numpy(noise(1_000))[None]
    padded = torch.nn.functional.pad(wave, (0, 8_000))
    module = energies()
    torch.testing.assert_close(module(wave), module(padded)[:, :, :2], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_bins": 96}, "the last of 96 bins reaches from 7902 to 8372 Hz, above"),
        ({"sample_rate": 8000}, "half of the sample rate, 4000 Hz"),
        ({"log": "natural"}, "do nothing with log 'natural'"),
        ({"log_floor": 0.0}, "log_floor is 0"),
    ],
)
def test_impossible_settings_are_refused_by_name(options: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        cqt(**options)
