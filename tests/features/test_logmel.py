"""The log-mel front end is the one behind the published checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from glottis.errors import ConfigError
from glottis.features import FEATURES, FrontEnd, build_features
from glottis.features._filters import mel_filters
from glottis.features.logmel import raised
from glottis.rng import torch_generator

RESNET = [
    ("ResNetSE34L_SAP", {"num_mels": 40}),
    ("ResNetSE34V2_ASP", {"num_mels": 64, "pre_emphasis": 0.97}),
    ("VGGVox_SAP", {"num_mels": 40, "window": "hann"}),
]
REDIMNET = [("b0", 60, 160), ("b1", 72, 160), ("b2_official", 72, 240)]
SE_RESNET_MEL = {
    "num_mels": 128,
    "window_samples": 512,
    "window": "hann",
    "padding": "zero",
    "mel_scale": "slaney",
    "mel_area_norm": True,
    "log": "db",
    "log_floor": 1e-10,
    "db_reference": "clip_maximum",
    "dynamic_range_db": 80.0,
}


def logmel(**options: object) -> FrontEnd:
    return build_features(FEATURES.config("logmel", **options))


def largest(ours: Tensor, reference: Tensor) -> float:
    return float((ours - reference).abs().max())


@pytest.mark.parametrize(("name", "options"), RESNET)
def test_mel_energies_equal_the_public_speaker_trainer(
    shared: Path, name: str, options: dict[str, object]
) -> None:
    golden = load_file(shared / "golden" / "vox_models_io.safetensors")
    reference = golden[f"{name}.eval.torchfb"]
    ours = logmel(**options, log="none", log_floor=0.0)(golden["input.wave"][:1])
    assert largest(ours, reference) <= 1e-5 * float(reference.abs().max())


@pytest.mark.parametrize(("name", "options"), RESNET)
def test_instance_normalised_log_mel_equals_the_public_speaker_trainer(
    shared: Path, name: str, options: dict[str, object]
) -> None:
    golden = load_file(shared / "golden" / "vox_models_io.safetensors")
    reference = golden[f"{name}.eval.instancenorm"]
    wave = golden["input.wave"][:1]
    exact = logmel(**options, normalise="mean_var", precision="double")(wave)
    assert largest(exact, reference) <= 5e-5  # what a float64 computation from the text reaches
    fast = logmel(**options, normalise="mean_var")(wave)
    assert largest(fast, reference) <= 2e-5 * float(reference.abs().max())


@pytest.mark.parametrize(("name", "num_mels", "hop"), REDIMNET)
def test_mean_normalised_log_mel_equals_redimnet(
    shared: Path, name: str, num_mels: int, hop: int
) -> None:
    golden = load_file(shared / "golden" / "redimnet_io.safetensors")
    reference = golden[f"{name}.eval.spec"]
    options = {
        "num_mels": num_mels,
        "hop_samples": hop,
        "pre_emphasis": 0.97,
        "low_hz": 20.0,
        "high_hz": 7600.0,
        "normalise": "mean",
    }
    bound = 1e-5 * float(reference.abs().max())
    exact = logmel(**options, precision="double")(golden["input.wave"])
    assert largest(exact, reference) <= bound
    # single precision: the reference's own rounding and ours add up in the quietest bins
    difference = (logmel(**options)(golden["input.wave"]) - reference).abs()
    assert float((difference > bound).double().mean()) < 1e-4
    assert float(difference.max()) <= 2 * bound


def test_instance_normalised_log_mel_equals_the_nested_network(shared: Path) -> None:
    golden = load_file(shared / "golden" / "dim_models_io.safetensors")
    reference = golden["nested_4level_sap.eval.instancenorm"]
    ours = logmel(num_mels=80, normalise="mean_var")(golden["input.wave"][:1])
    assert largest(ours, reference) <= 5e-5


def test_decibel_mel_equals_the_se_resnet_front_end(shared: Path) -> None:
    golden = load_file(shared / "golden" / "seresnet_frontend.safetensors")
    wave, reference = golden["wave"][None], golden["mel"]
    assert largest(logmel(**SE_RESNET_MEL)(wave)[0], reference) <= 2e-5 * 80.0
    exact = logmel(**SE_RESNET_MEL, precision="double")(wave)[0]
    assert largest(exact, reference) <= 1e-5


def test_plain_mel_equals_the_ge2e_encoder_input(shared: Path) -> None:
    golden = load_file(shared / "golden" / "ge2e_io.safetensors")
    module = logmel(
        num_mels=40,
        fft_size=400,
        window="hann",
        padding="zero",
        mel_scale="slaney",
        mel_area_norm=True,
        log="none",
        log_floor=0.0,
    )
    wave = golden["w0.volume_normalised"]
    padded = torch.nn.functional.pad(wave, (0, 62560 - len(wave)))
    mel = module(padded[None])[0].T  # (T, F)
    reference = golden["w0.partial_mels"]
    for start, partial in zip(golden["w0.mel_slice_starts"].tolist(), reference, strict=True):
        ours = mel[start : start + 160]
        assert largest(ours, partial) <= 1e-5 * float(partial.max())


GE2E = {
    "num_mels": 40,
    "fft_size": 400,
    "window": "hann",
    "padding": "zero",
    "mel_scale": "slaney",
    "mel_area_norm": True,
    "log": "none",
    "log_floor": 0.0,
}


@pytest.mark.parametrize("name", ["w0", "w1", "w2", "w3"])
def test_quiet_clips_are_raised_and_their_tail_is_heard_as_in_ge2e(shared: Path, name: str) -> None:
    golden = load_file(shared / "golden" / "ge2e_io.safetensors")
    wave = golden[f"{name}.wave"]
    louder = golden[f"{name}.volume_normalised"]
    assert largest(raised(wave[None], -30.0)[0], louder) <= 1e-5 * float(louder.abs().max())
    module = logmel(**GE2E, raise_to_dbfs=-30.0, tail_samples=320)
    mel = module(wave[None])[0].T
    assert len(mel) == module.num_frames(len(wave)) == len(wave) // 160 + 3
    starts = golden[f"{name}.mel_slice_starts"].tolist()
    for start, partial in zip(starts, golden[f"{name}.partial_mels"], strict=True):
        ours = mel[start : start + 160]
        assert largest(ours, partial[: len(ours)]) <= 1e-5 * float(partial.max())
        assert float(partial[len(ours) :].abs().sum()) == 0.0  # nothing is left to hear


def test_only_quiet_clips_are_raised_and_silence_stays_silent() -> None:
    noise = torch.randn(1, 8000, generator=torch_generator(2))
    clips = torch.cat([0.1 * noise, 1e-3 * noise, torch.zeros(1, 8000)])
    louder = raised(clips, -30.0)
    assert torch.equal(louder[0], clips[0])
    level = 20 * float(louder[1].square().mean().sqrt().log10())
    assert level == pytest.approx(-30.0, abs=1e-4)
    assert torch.equal(louder[2], torch.zeros(8000))


def test_symmetric_slopes_follow_the_definition_of_the_speechbrain_filters() -> None:
    # peak 1 at each inner corner, falling on both sides to 0 at the distance of the lower corner
    mel = 2595.0 * np.log10(1.0 + np.array([0.0, 8000.0]) / 700.0)
    corners = 700.0 * (10.0 ** (np.linspace(*mel, 82) / 2595.0) - 1.0)
    expected = np.zeros((80, 201))
    for band in range(80):
        width = corners[band + 1] - corners[band]
        for index in range(201):
            away = abs(index * 40.0 - corners[band + 1]) / width
            expected[band, index] = max(0.0, 1.0 - away)
    filters = mel_filters(80, 400, 16000, 0.0, 8000.0, symmetric=True)
    np.testing.assert_allclose(filters, expected, atol=1e-12)
    wave = torch.randn(1, 4000, generator=torch_generator(3))
    options = {"fft_size": 400, "log": "none", "log_floor": 0.0}
    found = logmel(**options, mel_slopes="symmetric")(wave)
    plain = logmel(**options)(wave)
    assert (found <= plain).all()  # they end earlier
    assert float(found.sum()) < 0.999 * float(plain.sum())


def test_one_swapped_setting_is_noticed_by_the_golden_comparison(shared: Path) -> None:
    golden = load_file(shared / "golden" / "vox_models_io.safetensors")
    reference = golden["ResNetSE34L_SAP.eval.torchfb"]
    for wrong in ({"window": "hann"}, {"padding": "zero"}, {"low_hz": 20.0}, {"fft_size": 400}):
        ours = logmel(num_mels=40, log="none", log_floor=0.0, **wrong)(golden["input.wave"][:1])
        assert largest(ours, reference) > 1e-3 * float(reference.abs().max())


def test_a_tone_falls_into_the_band_around_its_frequency() -> None:
    module = logmel(num_mels=40)
    mel = 2595.0 * np.log10(1.0 + np.array([0.0, 8000.0]) / 700.0)
    centres = 700.0 * (10.0 ** (np.linspace(*mel, 42)[1:-1] / 2595.0) - 1.0)
    for band in (8, 20, 33):
        wave = torch.sin(2 * torch.pi * centres[band] * torch.arange(16000) / 16000)
        assert int(module(wave[None].float())[0].mean(-1).argmax()) == band


def test_each_octave_of_level_is_the_logarithm_of_four() -> None:
    module = logmel(log_floor=1e-12)
    wave = torch.randn(1, 8000, generator=torch_generator(1)) * 0.1
    rise = module(2 * wave) - module(wave)
    torch.testing.assert_close(rise, torch.full_like(rise, np.log(4.0)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"high_hz": 9000.0}, "0..9000 Hz does not fit"),
        ({"low_hz": 4000.0, "high_hz": 3000.0}, "4000..3000 Hz"),
        ({"num_mels": 200}, "filters hold no FFT bin"),
        ({"window_samples": 600}, "window_samples 600 is more than fft_size 512"),
        ({"log_floor": 0.0}, "log_floor is 0"),
        ({"dynamic_range_db": 80.0}, "do nothing with log 'natural'"),
    ],
)
def test_impossible_settings_are_refused_by_name(options: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        logmel(**options)
