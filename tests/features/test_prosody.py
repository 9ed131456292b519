"""The prosodic contour of sounds whose prosody is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from glottis.errors import ConfigError
from glottis.features import FEATURES, FrontEnd, build_features
from glottis.features.prosody import ROWS
from glottis.rng import torch_generator

TIME = torch.arange(16_000, dtype=torch.float64) / 16_000
INNER = slice(6, -6)  # frames whose window lies inside the clip


def prosody(**options: object) -> FrontEnd:
    return build_features(FEATURES.config("prosody", **options))


def contour(wave: Tensor, **options: object) -> dict[str, Tensor]:
    rows = prosody(**options)(wave.float()[None])[0]
    return dict(zip(ROWS, rows, strict=True))


def sine(hz: float, level: float = 0.1) -> Tensor:
    return level * torch.sin(2 * torch.pi * hz * TIME)


def harmonics(hz: float, kind: str) -> Tensor:
    """Cosines at multiples of ``hz`` up to 8 kHz: all alike, or falling as 1 / k, or a few."""
    k = torch.arange(1, int(7_900 / hz) + 1, dtype=torch.float64)[:, None]
    each = torch.cos(2 * torch.pi * k * hz * TIME)
    if kind == "pulses":
        return 0.02 * each.sum(0)
    if kind == "falling":
        return 0.05 * (each / k).sum(0)
    return 0.02 * each[2:8].sum(0)  # "missing": without the fundamental and the second


def noise(level: float = 0.1, seed: int = 0) -> Tensor:
    return level * torch.randn(16_000, generator=torch_generator(seed, "prosody"))


@pytest.mark.parametrize("kind", ["pulses", "falling", "missing"])
@pytest.mark.parametrize("hz", [67.0, 90.5, 123.4, 200.0, 251.7, 333.3, 440.0, 485.0])
def test_pitch_of_periodic_sounds(hz: float, kind: str) -> None:
    rows = contour(harmonics(hz, kind))
    found = rows["f0"][INNER] * 100.0
    assert float((found / hz - 1).abs().max()) < 1e-3
    assert float(rows["voicing"][INNER].min()) > 0.95
    assert float(rows["f0_change"][INNER].abs().max()) < 1e-3


@pytest.mark.parametrize("hz", [66.0, 150.3, 498.0])
def test_pitch_of_a_sine_is_exact_to_a_part_in_three_thousand(hz: float) -> None:
    rows = contour(sine(hz))
    assert float((rows["f0"][INNER] * 100.0 / hz - 1).abs().max()) < 1 / 3000
    # two sign changes per period
    assert float(rows["crossings"][INNER].mean()) == pytest.approx(2 * hz / 16_000, rel=0.05)


def test_pitch_in_noise_of_ten_decibel() -> None:
    clean = harmonics(180.0, "falling")
    rows = contour(clean + noise(float(clean.std()) / 10**0.5))
    assert float((rows["f0"][INNER] * 100.0 / 180.0 - 1).abs().max()) < 0.02
    assert bool((rows["voicing"][INNER] < 0.99).all())


def test_a_gliding_pitch_is_followed_and_its_change_is_that_of_a_frame() -> None:
    # 100 Hz + 100 Hz per second: 1 Hz in a frame of 10 ms
    rows = contour(0.1 * torch.sin(2 * torch.pi * (100.0 * TIME + 50.0 * TIME**2)))
    middle = 100.0 + 100.0 * torch.arange(101) * 0.01
    assert float((rows["f0"] * 100.0 - middle)[INNER].abs().max()) < 0.1
    assert float((rows["f0_change"][INNER] - 0.01).abs().max()) < 1e-3


def test_the_unit_of_pitch_is_an_option() -> None:
    rows = contour(sine(250.0), f0_unit_hz=500.0)
    assert float(rows["f0"][50]) == pytest.approx(0.5, rel=1e-3)


def test_white_noise_is_unvoiced() -> None:
    rows = contour(noise())
    assert float(rows["voicing"].max()) < 0.4
    assert float(rows["f0"].abs().max()) == 0.0
    assert float(rows["f0_change"].abs().max()) == 0.0
    assert float(rows["crossings"][INNER].mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("value", [0.0, 0.5, -1.0, 1e-6])
def test_silence_and_constants_give_zeros(value: float) -> None:
    rows = prosody()(torch.full((1, 8_000), value))
    assert torch.equal(rows, torch.zeros_like(rows))


def test_a_constant_under_a_sound_changes_nothing() -> None:
    wave = harmonics(120.0, "falling") + noise(0.01)
    plain, shifted = contour(wave), contour(wave + 0.3)
    for name in ROWS:
        torch.testing.assert_close(shifted[name][INNER], plain[name][INNER], atol=2e-3, rtol=0)


def test_loudness_of_the_clip_changes_nothing_but_its_course_does() -> None:
    wave = harmonics(120.0, "falling") * (0.3 + 0.2 * torch.sin(2 * torch.pi * 2 * TIME))
    plain, louder = contour(wave), contour(wave * 4.0)
    for name in ROWS:
        torch.testing.assert_close(louder[name], plain[name], atol=1e-3, rtol=0)
    assert float(plain["rms"].max()) == 1.0
    expected = (0.3 + 0.2 * np.sin(2 * np.pi * 2 * np.arange(101) * 0.01)) / 0.5
    assert float((plain["rms"] - torch.from_numpy(expected))[INNER].abs().max()) < 0.02
    assert torch.equal(plain["rms_change"][1:], plain["rms"][1:] - plain["rms"][:-1])


def test_frames_far_below_the_loudest_are_silent() -> None:
    wave = sine(200.0)
    wave[8_000:] *= 10 ** (-50 / 20)  # periodic, but 50 dB down
    rows = contour(wave)
    assert float(rows["f0"][10:40].min()) > 1.9
    assert float(rows["voicing"][60:].max()) == 0.0
    assert float(rows["f0"][60:].max()) == 0.0
    heard = contour(wave, silence_db=60.0)
    assert float(heard["f0"][60:-6].min()) > 1.9


def test_no_change_of_pitch_is_seen_where_voicing_begins_or_ends() -> None:
    wave = sine(200.0)
    wave[5_000:11_000] = 0.0
    rows = contour(wave)
    assert float(rows["f0"].max()) > 1.9
    assert float(rows["f0"].min()) == 0.0
    assert float(rows["f0_change"].abs().max()) < 0.2


def test_onsets_are_at_the_clicks() -> None:
    wave = noise(1e-3)
    for start in (4_000, 8_000, 12_000):
        wave[start : start + 800] += noise(0.3)[:800]
    onset = contour(wave)["onset"]
    assert float(onset.max()) == 1.0
    loud = torch.nonzero(onset > 0.5)[:, 0].tolist()
    assert loud
    # the window of 48 ms reaches a click 24 ms, two frames and a half, before its centre does
    assert all(min(abs(t - click) for click in (23, 48, 73)) <= 2 for t in loud)
    assert all(any(abs(t - click) <= 2 for t in loud) for click in (23, 48, 73))


def test_every_row_keeps_its_range() -> None:
    wave = harmonics(150.0, "falling") + noise(0.02)
    wave[:3_000] = noise(0.2)[:3_000]
    rows = contour(wave)
    for name in ("rms", "crossings", "onset", "voicing"):
        assert 0.0 <= float(rows[name].min()) <= float(rows[name].max()) <= 1.0
    assert float(rows["f0"][rows["f0"] > 0].min()) >= 0.65
    assert float(rows["f0"].max()) <= 5.05


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"low_hz": 50.0}, "768 samples holds 2.4 periods of 50 Hz"),
        ({"window_samples": 400}, "window_samples 739, or low_hz 120"),
        ({"high_hz": 5000.0}, r"65\.\.5000 Hz"),
        ({"low_hz": 500.0, "high_hz": 300.0}, r"500\.\.300 Hz"),
    ],
)
def test_impossible_settings_are_refused_by_name(options: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        prosody(**options)
