"""The Kaldi filterbank against kaldi-native-fbank and against a slow float64 version."""

from __future__ import annotations

from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from glottis.features import FEATURES, build_features
from glottis.rng import generator

Array = NDArray[np.float32]
WINDOWS = ["povey", "hamming"]


def ours(wave: Array, window: str, precision: str = "double") -> NDArray[np.float32]:
    module = build_features(FEATURES.config("kaldi_fbank", window=window, precision=precision))
    return module(torch.from_numpy(wave)[None])[0].T.numpy()  # (T, F)


def native(wave: Array, window: str) -> NDArray[np.float32]:
    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = window
    options.mel_opts.num_bins = 80
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(16000, (wave * 32768.0).tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])


def textbook(wave: Array, window: str) -> NDArray[np.float64]:
    """Frame by frame and filter by filter, as the Kaldi documentation describes it, in float64."""
    n = np.arange(400)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / 399)
    shape = hann**0.85 if window == "povey" else 0.54 - 0.46 * np.cos(2 * np.pi * n / 399)
    mel_of_bin = [1127.0 * np.log(1.0 + (b * 16000 / 512) / 700.0) for b in range(256)]
    low, high = 1127.0 * np.log(1.0 + 20.0 / 700.0), 1127.0 * np.log(1.0 + 8000.0 / 700.0)
    step = (high - low) / 81
    filters = np.zeros((80, 256))
    for m in range(80):
        left, centre, right = (low + (m + k) * step for k in range(3))
        for b, mel in enumerate(mel_of_bin):
            if left < mel <= centre:
                filters[m, b] = (mel - left) / (centre - left)
            elif centre < mel < right:
                filters[m, b] = (right - mel) / (right - centre)
    samples = wave.astype(np.float64) * 32768.0
    rows = []
    for start in range(0, len(samples) - 399, 160):
        frame = samples[start : start + 400]
        frame = frame - frame.mean()
        sharp = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(sharp * shape, 512))[:256] ** 2
        rows.append(np.log(np.maximum(filters @ power, np.finfo(np.float32).eps)))
    return np.array(rows)


def synthetic() -> list[Array]:
    rng = generator(11, "kaldi")
    clips = [rng.standard_normal(24000) * level for level in (0.3, 0.01, 1e-4)]
    clips.append(0.4 + clips[0] * 0.1)  # riding on a large offset
    return [clip.astype(np.float32) for clip in clips]


def real(shared: Path) -> list[Array]:
    files = sorted((shared / "speech" / "bonafide").glob("*/*/*.flac"))[::150]
    clips = [soundfile.read(file, dtype="float32")[0][:48000] for file in files]
    assert len(clips) >= 8
    return clips


def check(clips: list[Array], window: str) -> None:
    worst_ours, worst_native = 0.0, 0.0
    for clip in clips:
        exact, other, mine = textbook(clip, window), native(clip, window), ours(clip, window)
        assert mine.shape == other.shape == exact.shape
        assert np.abs(mine - other).mean() < 1e-4
        worst_ours = max(worst_ours, float(np.abs(mine - exact).max()))
        worst_native = max(worst_native, float(np.abs(other - exact).max()))
        assert np.abs(mine - exact).mean() < np.abs(other - exact).mean()
    assert worst_ours < worst_native
    assert worst_ours < 5e-6


@pytest.mark.parametrize("window", WINDOWS)
def test_nearer_to_float64_than_kaldi_native_on_noise(window: str) -> None:
    check(synthetic(), window)


@pytest.mark.parametrize("window", WINDOWS)
def test_nearer_to_float64_than_kaldi_native_on_speech(shared: Path, window: str) -> None:
    check(real(shared), window)


@pytest.mark.parametrize("window", WINDOWS)
def test_single_precision_stays_within_the_parity_bound(shared: Path, window: str) -> None:
    for clip in real(shared):
        difference = np.abs(ours(clip, window, "single") - native(clip, window))
        assert difference.mean() < 1e-4


def test_silence_is_the_logarithm_of_float32_epsilon() -> None:
    silent = ours(np.zeros(8000, np.float32), "povey")
    assert np.allclose(silent, np.log(np.finfo(np.float32).eps), atol=1e-5)


def test_no_frame_crosses_the_ends_of_the_clip() -> None:
    module = build_features(FEATURES.config("kaldi_fbank"))
    assert [module.num_frames(n) for n in (400, 559, 560, 16000)] == [1, 1, 2, 98]


def test_an_offset_disappears() -> None:
    clip = synthetic()[0] * np.float32(0.1)
    shifted = ours(clip + np.float32(0.25), "povey")
    assert np.abs(shifted - ours(clip, "povey")).max() < 1e-2
