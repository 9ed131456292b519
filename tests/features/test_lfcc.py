"""LFCC against a slow textbook version and a stored front end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from glottis.features import FEATURES, FrontEnd, build_features
from glottis.features._cepstra import deltas
from glottis.rng import generator

SE_RESNET = {
    "num_coefficients": 13,
    "window_samples": 512,
    "window": "hann",
    "pre_emphasis": 0.0,
    "log": "natural",
    "log_floor": 1e-10,
    "delta_orders": 0,
}


def lfcc(**options: object) -> FrontEnd:
    return build_features(FEATURES.config("lfcc", **options))


def textbook(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    """20 ms Hamming, 512 FFT, 20 linear filters, log10, DCT-II, deltas: loops, float64."""
    sharp = wave - 0.97 * np.concatenate([wave[1:2], wave[:-1]])
    padded = np.concatenate([np.zeros(160), sharp, np.zeros(160)])
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(320) / 320)
    corners = np.arange(22) * 8000.0 / 21.0
    columns = []
    for start in range(0, len(wave) + 1, 160):
        power = np.abs(np.fft.rfft(padded[start : start + 320] * window, 512)) ** 2
        logs = []
        for k in range(20):
            energy = 0.0
            for b in range(257):
                hz = b * 16000 / 512
                rising = (hz - corners[k]) / (corners[k + 1] - corners[k])
                falling = (corners[k + 2] - hz) / (corners[k + 2] - corners[k + 1])
                energy += max(0.0, min(rising, falling)) * power[b]
            logs.append(np.log10(energy + np.finfo(np.float32).eps))
        row = [
            sum(logs[k] * np.cos(np.pi * c * (k + 0.5) / 20) for k in range(20))
            * np.sqrt((1 if c == 0 else 2) / 20)
            for c in range(20)
        ]
        columns.append(row)
    static = np.array(columns).T

    def slope(values: NDArray[np.float64]) -> NDArray[np.float64]:
        edges = np.concatenate([values[:, :1], values, values[:, -1:]], axis=1)
        return edges[:, 2:] - edges[:, :-2]

    return np.concatenate([static, slope(static), slope(slope(static))])


def test_default_equals_the_textbook_with_deltas_and_double_deltas() -> None:
    wave = (generator(3, "lfcc").standard_normal(4000) * 0.1).astype(np.float32)
    ours = lfcc()(torch.from_numpy(wave)[None])[0].numpy()
    reference = textbook(wave.astype(np.float64))
    assert ours.shape == reference.shape == (60, 26)
    assert np.abs(ours - reference).max() < 1e-5 * np.abs(reference).max()


def test_se_resnet_lfcc_equals_the_stored_vectors(shared: Path) -> None:
    golden = load_file(shared / "golden" / "seresnet_frontend.safetensors")
    bound = 1e-5 * float(golden["lfcc"].abs().max())
    wave = golden["wave"][None]
    assert float((lfcc(**SE_RESNET)(wave)[0] - golden["lfcc"]).abs().max()) < bound
    exact = lfcc(**SE_RESNET, precision="double")(wave)[0]
    assert float((exact - golden["lfcc"]).abs().max()) < bound / 10


def test_fewer_delta_orders_are_a_prefix_of_the_features() -> None:
    wave = torch.from_numpy(generator(4).standard_normal((1, 4000)).astype(np.float32))
    full = lfcc()(wave)
    assert torch.equal(lfcc(delta_orders=1)(wave), full[:, :40])
    assert torch.equal(lfcc(delta_orders=0)(wave), full[:, :20])


def test_delta_of_a_ramp_is_two_inside_and_one_at_the_edges() -> None:
    ramp = torch.arange(6.0).expand(1, 1, 6)
    assert deltas(ramp).flatten().tolist() == [1.0, 2.0, 2.0, 2.0, 2.0, 1.0]


def test_energy_takes_the_place_of_the_zeroth_coefficient() -> None:
    wave = torch.from_numpy(generator(5).standard_normal((1, 4000)).astype(np.float32) * 0.1)
    plain, energy = lfcc(delta_orders=0)(wave)[0], lfcc(delta_orders=0, energy=True)(wave)[0]
    torch.testing.assert_close(energy[1:], plain[1:], rtol=1e-5, atol=1e-5)
    sharp = wave[0].double()
    sharp = sharp - 0.97 * torch.cat([sharp[1:2], sharp[:-1]])
    frames = torch.nn.functional.pad(sharp, (160, 160)).unfold(0, 320, 160)
    frames = frames * torch.hamming_window(320, dtype=torch.float64)
    power = torch.fft.rfft(frames, 512).abs().square().sum(dim=1) / 512
    expected = torch.log10(power + torch.finfo(torch.float32).eps).float()
    torch.testing.assert_close(energy[0], expected, rtol=1e-5, atol=1e-5)
    assert lfcc(energy=True).num_features == 60
