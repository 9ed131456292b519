"""What every registered front end promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from glottis.config import Config, require_all_read
from glottis.errors import AudioError
from glottis.features import FEATURES, FrontEnd, build_features
from glottis.rng import torch_generator

NAMES = FEATURES.names()
STREAMS: list[dict[str, object]] = [  # centred or not, with other windows
    {"name": "logmel"},
    {"name": "kaldi_fbank"},
    {"name": "cqt", "hop_samples": 160, "low_hz": 500.0, "num_bins": 12},
]


def front_end(name: str, **options: object) -> FrontEnd:
    return build_features(config_of(name, **options))


def config_of(name: str, **options: object) -> Config:
    if name == "fused":  # has no options of its own but the streams, which have them all
        return FEATURES.config(name, streams=[{**stream, **options} for stream in STREAMS])
    return FEATURES.config(name, **options)


def waves(batch: int, samples: int, scale: float = 0.1) -> Tensor:
    return torch.randn(batch, samples, generator=torch_generator(0, batch, samples)) * scale


def test_the_front_ends_of_the_design_are_registered() -> None:
    assert NAMES == ["cqt", "fused", "kaldi_fbank", "lfcc", "logmel", "mfcc", "prosody"]


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_read(name: str) -> None:
    config = config_of(name)
    build_features(config)
    require_all_read(config)


@pytest.mark.parametrize("name", NAMES)
def test_default_of_each_front_end_has_a_docstring_with_shapes(name: str) -> None:
    assert "(B, S) ->" in FEATURES[name].summary


@pytest.mark.parametrize("normalise", ["none", "mean", "mean_var"])
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_type_are_as_announced(name: str, normalise: str) -> None:
    module = front_end(name, normalise=normalise)
    for samples in (module.min_samples, 4000, 4001, 4159, 4160):
        features = module(waves(2, samples))
        assert features.shape == (2, module.num_features, module.num_frames(samples))
        assert features.dtype == torch.float32
        assert features.is_contiguous()


@pytest.mark.parametrize("name", NAMES)
def test_no_table_enters_the_state_dict_and_nothing_is_trainable(name: str) -> None:
    module = front_end(name)
    assert len(module.state_dict()) == 0
    assert list(module.parameters()) == []


@pytest.mark.parametrize("name", NAMES)
def test_batch_equals_one_by_one_bit_for_bit(name: str) -> None:
    module, wave = front_end(name, normalise="mean_var"), waves(5, 8000)
    together = module(wave)
    for index in range(5):
        assert torch.equal(together[index], module(wave[index : index + 1])[0])


@pytest.mark.parametrize("name", NAMES)
def test_loudness_of_the_neighbour_changes_nothing(name: str) -> None:
    module, wave = front_end(name), waves(2, 8000)
    louder = torch.stack([wave[0], wave[1] * 50.0])
    assert torch.equal(module(wave)[0], module(louder)[0])


@pytest.mark.parametrize("name", NAMES)
def test_autocast_to_bf16_changes_no_bit(name: str) -> None:
    module, wave = front_end(name), waves(2, 8000)
    expected = module(wave)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = module(wave)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, expected)


@pytest.mark.parametrize("name", NAMES)
def test_casting_the_module_to_half_keeps_its_tables(name: str) -> None:
    module, wave = front_end(name), waves(2, 8000)
    expected = module(wave)
    assert torch.equal(module.to(torch.bfloat16).half()(wave), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("normalise", ["none", "mean", "mean_var"])
def test_silence_dc_and_full_scale_are_finite(name: str, normalise: str) -> None:
    module = front_end(name, normalise=normalise)
    wave = torch.stack([torch.zeros(8000), torch.full((8000,), 0.5), waves(1, 8000, 1.0)[0]])
    assert torch.isfinite(module(wave)).all()


@pytest.mark.parametrize("name", NAMES)
def test_too_short_input_is_named_with_both_lengths(name: str) -> None:
    module = front_end(name)
    module(waves(1, module.min_samples))
    with pytest.raises(AudioError, match=f"{module.min_samples - 1} samples.*{module.min_samples}"):
        module(waves(1, module.min_samples - 1))


@pytest.mark.parametrize("dtype", [torch.int16, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_other_types_than_float32_are_refused(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(AudioError, match=r"float32 in \[-1, 1\]"):
        front_end(name)(waves(1, 8000).to(dtype))


@pytest.mark.parametrize("name", NAMES)
def test_a_single_clip_without_batch_axis_is_refused(name: str) -> None:
    with pytest.raises(AudioError, match="unsqueeze"):
        front_end(name)(waves(1, 8000)[0])


@pytest.mark.parametrize("name", NAMES)
def test_mean_var_gives_mean_zero_and_variance_one_but_for_the_epsilon(name: str) -> None:
    wave = waves(2, 16000)
    features = front_end(name, normalise="mean_var")(wave)
    assert features.mean(-1).abs().max() < 1e-5
    plain = front_end(name)(wave).var(-1, correction=0)
    expected = plain / (plain + 1e-5)
    assert (features.var(-1, correction=0) - expected).abs().max() < 1e-3
    if name != "prosody":  # noise has no pitch: a constant row stays zero
        assert (expected - 1.0).abs().max() < 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_the_waveform(name: str) -> None:
    wave = waves(2, 4000).requires_grad_()
    front_end(name)(wave).square().sum().backward()
    assert wave.grad is not None
    assert torch.isfinite(wave.grad).all()
    assert bool((wave.grad.abs().sum(1) > 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_export_has_a_free_batch_and_length_and_equal_results(name: str) -> None:
    module = front_end(name, normalise="mean_var").eval()
    shortest = module.min_samples + module.hop_samples  # two frames: one frame is a special case
    free = {
        0: torch.export.Dim("batch", min=1, max=512),
        1: torch.export.Dim("samples", min=shortest, max=10_000_000),
    }
    program = torch.export.export(module, (waves(3, 16000),), dynamic_shapes=(free,))
    for batch, samples in ((1, shortest), (4, 8001)):
        wave = waves(batch, samples)
        torch.testing.assert_close(program.module()(wave), module(wave), rtol=1e-5, atol=1e-5)


class Counted(TorchDispatchMode):
    """Counts the operations of torch."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NAMES)
def test_a_longer_clip_takes_no_more_operations(name: str) -> None:
    module, counts = front_end(name), []
    for samples in (8000, 32000):
        with Counted() as counted:
            module(waves(1, samples))
        counts.append(counted.calls)
    assert counts[0] == counts[1]  # no loop over frames


@pytest.mark.parametrize("name", NAMES)
def test_all_of_it_is_computed_on_the_device_of_the_wave(name: str) -> None:
    module = front_end(name, normalise="mean_var").to("meta")  # refuses a tensor from elsewhere
    features = module(waves(2, 8000).to("meta"))
    assert features.device.type == "meta"
    assert features.dtype == torch.float32
    assert features.shape == (2, module.num_features, module.num_frames(8000))


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_cuda_gives_the_same_features(name: str) -> None:
    module, wave = front_end(name), waves(4, 16000)
    on_cpu = module(wave)
    on_gpu = module.cuda()(wave.cuda()).cpu()
    assert (on_gpu - on_cpu).abs().max() < 2e-5 * on_cpu.abs().max()
