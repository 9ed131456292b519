"""Rooms: the direct sound stays in place, the level stays the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import fftconvolve

from glottis.augment import AugmentContext, Bank, Sound
from glottis.augment.reverb import Reverb, ReverbConfig, ReverbParams
from glottis.config import build
from glottis.errors import DataError
from glottis.rng import generator, torch_generator


def reverb(root: Path = Path("."), **options: object) -> Reverb:
    return Reverb(build(ReverbConfig, options), AugmentContext(16000, root, 1))


def with_room(samples: np.ndarray) -> Reverb:
    """An augmentation whose only room is this one (int16)."""
    augmentation = reverb(simulated_rooms=1)
    augmentation.bank = Bank([Sound("room", "rir", samples.astype(np.int16))], 16000, "test")
    return augmentation


@pytest.fixture(scope="module")
def simulated() -> Reverb:
    return reverb()


@pytest.fixture(scope="module")
def recorded(shared: Path) -> Reverb:
    return reverb(shared / "speech", source="noise_rir.csv", kinds=("rir",))


def rms_db(wave: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(wave.double().square().mean(1))


def check_level(augmentation: Reverb, wave: torch.Tensor) -> None:
    params = [augmentation.sample(generator(1, i), wave.shape[1]) for i in range(len(wave))]
    assert len(set(params)) > 10
    wet = augmentation.apply(wave, params)
    assert (rms_db(wet) - rms_db(wave)).abs().max() < 0.5
    assert augmentation.counts()["silent"] == 0


def test_level_is_kept_in_simulated_rooms(simulated: Reverb) -> None:
    check_level(simulated, 0.05 * torch.randn(32, 12000, generator=torch_generator(1)))


def test_level_is_kept_in_recorded_rooms_on_speech(shared: Path, recorded: Reverb) -> None:
    files = sorted((shared / "speech" / "bonafide").glob("LS*/*/*.flac"))[:32]
    clips = [np.resize(soundfile.read(f, dtype="float32")[0], 24000) for f in files]
    check_level(recorded, torch.from_numpy(np.stack(clips)))


def test_an_impulse_stays_where_it_was_in_every_room(simulated: Reverb, recorded: Reverb) -> None:
    """Recorded ones begin with up to 137 ms of nothing; that must not delay speech."""
    for augmentation in (simulated, recorded):
        rooms = len(augmentation.bank)
        wave = torch.zeros(rooms, 24000)
        wave[:, 5000] = 1.0
        wet = augmentation.apply(wave, [ReverbParams(i) for i in range(rooms)])
        assert wet.abs().argmax(1).tolist() == [5000] * rooms


def test_it_is_the_convolution_advanced_to_the_peak() -> None:
    response = generator(2).integers(-3000, 3000, 700)
    response[123] = 30000
    wave = (generator(3).standard_normal(5000) * 0.1).astype(np.float32)
    wet = with_room(response).apply(torch.from_numpy(wave)[None], [ReverbParams(0)])[0].numpy()
    full = fftconvolve(wave.astype(np.float64), response / 32768.0)[123 : 123 + 5000]
    full *= np.sqrt(np.mean(wave.astype(np.float64) ** 2) / np.mean(full**2))
    assert np.abs(wet - full).max() < 1e-5


@pytest.mark.parametrize("delay", [0, 400])
def test_a_room_without_walls_changes_nothing(delay: int) -> None:
    response = np.zeros(delay + 1)
    response[delay] = 20000
    wave = 0.1 * torch.randn(1, 3000, generator=torch_generator(4))
    wet = with_room(response).apply(wave, [ReverbParams(0)])
    torch.testing.assert_close(wet, wave, rtol=0, atol=1e-6)


def test_a_clip_shorter_than_the_room_keeps_length_and_level(simulated: Reverb) -> None:
    wave = 0.1 * torch.randn(1, 50, generator=torch_generator(5))
    wet = simulated.apply(wave, [ReverbParams(0)])
    assert wet.shape == (1, 50)
    assert float((rms_db(wet) - rms_db(wave)).abs()) < 0.5


def test_result_does_not_depend_on_the_company(simulated: Reverb) -> None:
    wave = 0.1 * torch.randn(3, 4000, generator=torch_generator(6))
    params = [ReverbParams(i) for i in (0, 30, 60)]
    together = simulated.apply(wave, params)
    reverse = simulated.apply(wave.flip(0), params[::-1]).flip(0)
    assert torch.equal(together, reverse)


def test_noise_in_the_list_is_refused_as_a_room(shared: Path) -> None:
    with pytest.raises(DataError, match="more than impulse responses: babble, event, music, noise"):
        reverb(shared / "speech", source="noise_rir.csv")


def test_quiet_recordings_of_rooms_use_all_sixteen_bits(tmp_path: Path) -> None:
    response = np.zeros(2000)
    response[100], response[1500] = 0.003, 0.0003
    soundfile.write(tmp_path / "room.wav", response, 16000, subtype="FLOAT")
    bank = reverb(tmp_path, source=".").bank
    assert int(bank.samples.abs().max()) == round(0.9 * 32768)
    assert int(bank.samples[1500]) == pytest.approx(0.09 * 32768, rel=1e-3)


def test_a_long_room_is_never_cut_into_its_tail(tmp_path: Path) -> None:
    for name in "abc":
        response = 0.01 * generator(7, name).standard_normal(6 * 16000)
        response[:200] = 0.0
        response[200] = 0.9
        soundfile.write(tmp_path / f"{name}.wav", response, 16000, subtype="FLOAT")
    bank = reverb(tmp_path, source=".", bank_seconds=12.0).bank
    assert bank.lengths == (6 * 16000,) * 2  # fewer rooms, but whole ones
    assert bank.peaks == (200, 200)


def test_a_folder_of_noise_or_music_is_refused_as_rooms(tmp_path: Path) -> None:
    for kind in ("simulated_rirs", "pointsource_noises"):
        (tmp_path / kind).mkdir()
        soundfile.write(tmp_path / kind / "a.wav", generator(8).random(800), 16000)
    with pytest.raises(DataError, match="more than impulse responses: pointsource_noises"):
        reverb(tmp_path, source=".")
    assert reverb(tmp_path, source=".", kinds=("simulated_rirs",)).bank.kinds == ("simulated_rirs",)
