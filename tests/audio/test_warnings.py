"""What a whole-file decode notices about a recording, and that healthy ones stay quiet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from glottis.audio import decode, warning_code
from helpers.audio_files import voice, write_sound


def codes(path: Path, **request: object) -> list[str]:
    return [warning_code(w) for w in decode(path, **request).warnings]  # type: ignore[arg-type]


def sick(kind: str) -> NDArray[np.float32]:
    sound = voice(1.0)
    return {
        "silent": np.full(16000, 0.01, np.float32),
        "quiet": sound * np.float32(1e-3),
        "dc_offset": sound * np.float32(0.5) + np.float32(0.2),
        "clipped": (8 * sound).clip(-1, 1),
        "short": sound[:1000],
    }[kind]


@pytest.mark.parametrize("kind", ["silent", "quiet", "dc_offset", "clipped", "short"])
def test_each_oddity_is_named(tmp_path: Path, kind: str) -> None:
    path = write_sound(tmp_path / "x.wav", sick(kind), subtype="PCM_24")
    assert codes(path) == [kind]


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "FLOAT", "ULAW", "ALAW"])
def test_healthy_speech_gives_no_warning(tmp_path: Path, subtype: str) -> None:
    assert codes(write_sound(tmp_path / "x.wav", voice(1.0), subtype=subtype)) == []


def test_clipping_is_seen_at_the_full_scale_of_mu_law(tmp_path: Path) -> None:
    assert codes(write_sound(tmp_path / "x.wav", sick("clipped"), subtype="ULAW")) == ["clipped"]


def test_crops_are_not_inspected(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "x.wav", sick("clipped"))
    assert decode(path, start_s=0.0, duration_s=0.5).warnings == ()
    assert decode(path, start_s=0.25).warnings == ()


def test_floats_over_full_scale_are_scaled_as_a_whole(tmp_path: Path) -> None:
    sound = voice(1.0)
    sound[8000] = 4.0
    path = write_sound(tmp_path / "x.wav", sound, subtype="FLOAT")
    audio = decode(path)
    np.testing.assert_allclose(audio.samples, sound / 4, rtol=1e-6)
    assert audio.warnings == ("over_full_scale: the peak is 4; scaled by -12.0 dB",)
    crop = decode(path, start_s=0.1, duration_s=0.1)  # far from the peak, same scale
    assert np.array_equal(crop.samples, audio.samples[1600:3200])


def stereo(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([left, right], axis=1)


def test_a_dead_channel_is_named_with_its_cost(tmp_path: Path) -> None:
    sound = voice(1.0)
    path = write_sound(tmp_path / "x.wav", stereo(np.zeros_like(sound), sound))
    (warning,) = decode(path).warnings
    assert warning.startswith("dead_channel: channel 0 of 2 is silent; the mix is 6.0 dB below")
    assert warning.endswith("choose channel=1")
    assert codes(path, channel=1) == []
    assert codes(path, channel=0) == ["silent"]


@pytest.mark.parametrize("other", ["another voice", "inverted"])
def test_different_channels_are_named(tmp_path: Path, other: str) -> None:
    sound = voice(1.0, seed=1)
    second = -sound if other == "inverted" else voice(1.0, seed=2) * np.float32(0.3)
    if other == "another voice":
        second = np.roll(second[::-1], 3000)
    path = write_sound(tmp_path / "x.wav", stereo(sound, second))
    assert "channels_differ" in codes(path)
    assert codes(path, channel=0) == []


def test_two_microphones_in_one_room_are_fine(tmp_path: Path) -> None:
    sound = voice(1.0)
    noise = voice(1.0, seed=5) * np.float32(0.1)
    path = write_sound(tmp_path / "x.wav", stereo(sound, np.float32(0.7) * sound + noise))
    assert codes(path) == []
    path = write_sound(tmp_path / "y.wav", np.zeros((16000, 2), np.float32))
    assert codes(path) == ["silent"]
