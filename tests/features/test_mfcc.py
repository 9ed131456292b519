"""MFCC against a stored front end and closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from glottis.errors import ConfigError
from glottis.features import FEATURES, FrontEnd, build_features
from glottis.rng import torch_generator


def mfcc(**options: object) -> FrontEnd:
    return build_features(FEATURES.config("mfcc", **options))


def test_default_equals_the_se_resnet_mfcc(shared: Path) -> None:
    golden = load_file(shared / "golden" / "seresnet_frontend.safetensors")
    for precision in ("single", "double"):
        ours = mfcc(precision=precision)(golden["wave"][None])[0]
        largest = float((ours - golden["mfcc"]).abs().max())
        assert largest <= 1e-5 * float(golden["mfcc"].abs().max())


def test_all_coefficients_hold_all_of_the_log_mel_energy() -> None:
    wave = torch.randn(1, 8000, generator=torch_generator(5)) * 0.1
    options = {"num_mels": 40, "log": "natural", "dynamic_range_db": None}
    cepstra = mfcc(num_coefficients=40, **options)(wave)
    mel = build_features(
        FEATURES.config(
            "logmel",
            num_mels=40,
            window_samples=512,
            window="hann",
            padding="zero",
            mel_scale="slaney",
            mel_area_norm=True,
            log_floor=1e-10,
        )
    )(wave)
    torch.testing.assert_close(cepstra.square().sum(1), mel.square().sum(1), rtol=1e-5, atol=1e-3)


def test_level_moves_only_the_zeroth_coefficient() -> None:
    wave = torch.randn(1, 8000, generator=torch_generator(6)) * 0.1
    rise = (mfcc()(wave * 0.5) - mfcc()(wave)).mean(-1)[0]
    assert float(rise[0]) == pytest.approx(-20 * np.log10(2.0) * np.sqrt(128), rel=1e-3)
    assert float(rise[1:].abs().max()) < 1e-2


def test_deltas_multiply_the_features() -> None:
    module = mfcc(delta_orders=2)
    assert module.num_features == 39
    assert module(torch.zeros(1, 4000)).shape == (1, 39, 26)


def test_more_coefficients_than_filters_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_coefficients 41 is more than the 40 filters"):
        mfcc(num_mels=40, num_coefficients=41)


def test_the_advice_for_another_logarithm_works() -> None:
    """The options that do nothing with it are defaults here: there is no line to remove."""
    with pytest.raises(ConfigError, match="dynamic_range_db: null and db_reference: one"):
        mfcc(log="natural")
    assert mfcc(log="natural", dynamic_range_db=None, db_reference="one").num_features == 13
