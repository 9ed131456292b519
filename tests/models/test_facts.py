"""What `glottis models` says of size and cost is counted right."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from glottis.errors import MissingExtra
from glottis.models import MODELS, create_model, facts
from glottis.models._cost import Shapes
from glottis.models.parts.fft_filter import fft_filter
from glottis.models.scales import initial_scales, silent_or_loud, speechlike

FRAMES = 301  # of 3 s at 16 kHz


def counted(module: nn.Module, *shape: int) -> int:
    """FLOP of a module on an input of this shape."""
    with torch.inference_mode(), Shapes() as shapes:
        module.to("meta").eval()(torch.empty(*shape, device="meta"))
    return shapes.total


def test_vggvox_costs_what_its_sizes_say() -> None:
    products = (
        40 * 150 * 1 * 96 * 35  # height x width of the output, inputs, outputs, taps
        + 19 * 36 * 96 * 256 * 25
        + 9 * 17 * 256 * 384 * 9
        + 9 * 17 * 384 * 256 * 9
        + 9 * 17 * 256 * 256 * 9
        + 1 * 8 * 256 * 512 * 4
        + 8 * 512 * 512 + 8 * 512  # attention: a matrix and a vector
        + 512 * 1024
    )  # fmt: skip
    mel = FRAMES * (2 * 257 * 40 + 2.5 * 512 * 9)
    size = facts.facts("vggvox").size
    assert size is not None
    assert size.gflop_per_second * 3e9 == pytest.approx(2 * products + mel, rel=1e-9)
    assert size.front_end_gflop_per_second * 3e9 == pytest.approx(mel, rel=1e-9)


def test_recurrent_layers_cost_their_matrices_at_every_step() -> None:
    steps, batch, inputs, units = 7, 3, 5, 4
    step = 2 * batch * steps
    lstm = nn.LSTM(inputs, units, num_layers=2, bidirectional=True, batch_first=True)
    matrices = 2 * 4 * units * (inputs + units) + 2 * 4 * units * (2 * units + units)
    assert counted(lstm, batch, steps, inputs) == step * matrices
    assert counted(nn.GRU(inputs, units), steps, batch, inputs) == step * 3 * units * (
        inputs + units
    )


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers_give_the_shapes_that_they_give(kind: type, batch_first: bool) -> None:
    layer = kind(5, 4, num_layers=2, bidirectional=True, batch_first=batch_first).eval()
    with torch.inference_mode():
        real = layer(torch.zeros(7, 3, 5))
        with Shapes():
            shapes = layer.to("meta")(torch.zeros(7, 3, 5, device="meta"))
    for one, other in zip(real, shapes, strict=True):
        ones, others = (x if isinstance(x, tuple) else (x,) for x in (one, other))
        assert [x.shape for x in ones] == [x.shape for x in others]


def test_a_convolution_through_the_fft_costs_its_transforms() -> None:
    block, taps, samples = 8192, 1025, 48_000
    blocks = math.ceil((samples - taps + 1) / (block - taps + 1))
    transform = 2.5 * block * math.log2(block)
    with torch.inference_mode(), Shapes() as shapes:
        wave = torch.empty(1, samples, device="meta")
        fft_filter(wave, torch.empty(20, taps, device="meta"), block)
    assert shapes.total == pytest.approx((blocks + 20 + 20 * blocks) * transform, rel=1e-6)


@pytest.mark.parametrize("name", ["aasist_l", "ecapa_512", "mlp_mixer_small", "redimnet_b0"])
def test_shapes_count_what_torch_counts_on_real_tensors(name: str) -> None:
    """torch knows no FFT, and not the kernel that attention takes on the CPU."""
    model = create_model(name, seed=0).eval()
    samples = 8_000
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, samples))
    with torch.inference_mode(), Shapes() as shapes:
        model.to("meta")(torch.empty(1, samples, device="meta"))
    unknown = shapes.flops["_fft_r2c"] + shapes.flops["scaled_dot_product_attention"]
    assert shapes.total - unknown == counter.get_total_flops()
    assert model.num_parameters == facts.facts(name).size.parameters


def test_no_product_is_left_out() -> None:
    """Every operation of every model that multiplies matrices or filters has a formula."""
    products = ("mm", "mv", "dot", "conv", "lstm", "gru", "rnn", "_fft_", "attention", "einsum")
    left_out: dict[str, list[str]] = {}
    for name in MODELS.names():
        size = facts.facts(name).size
        for operation in () if size is None else size.uncounted:
            if any(word in operation for word in products) and operation != "addcmul":
                left_out.setdefault(operation, []).append(name)
    assert not left_out


def test_a_model_that_needs_an_extra_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise MissingExtra("transformers", "ssl", "a self-supervised front end")

    monkeypatch.setattr(facts, "_on_meta", missing)
    found = facts.facts.__wrapped__("resnetse34l")
    assert (found.size, found.needs) == (None, "ssl")
    assert found.row()["parameters"] is None
    assert found.reference


def test_a_layer_that_starts_too_small_is_found() -> None:
    model = create_model("resnetse34l", seed=0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert not silent_or_loud(initial_scales(model, seconds=0.3), 1e-3, 1e3)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.network.stages[1][0].conv1.weight.data.mul_(1e-4)
    model.network.embedding.weight.data.mul_(1e5)
    wrong = silent_or_loud(initial_scales(model, seconds=0.3), 1e-3, 1e3)
    assert {scale.layer for scale in wrong} == {"stages.1.0.conv1", "embedding"}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS.names())
def test_no_layer_of_a_model_at_full_size_starts_too_small_or_too_large(name: str) -> None:
    """The contract tests look at small versions."""
    if facts.facts(name).needs:
        pytest.skip(f"needs the extra '{facts.facts(name).needs}'")
    wrong = silent_or_loud(initial_scales(create_model(name, seed=0)), 1e-3, 1e3)
    assert not [scale for scale in wrong if scale.layer != "pooling.attention"]  # sums to 1


def test_the_test_signal_is_speech_like() -> None:
    wave = speechlike(2, 16_000, 16_000)
    assert wave.shape == (2, 16_000)
    assert float(wave.abs().max()) < 1
    assert torch.equal(wave, speechlike(2, 16_000, 16_000))
    level = wave.unfold(1, 400, 400).square().mean(-1).sqrt()
    assert (level.amax(1) > 5 * level.amin(1)).all(), "no syllables"
    power = torch.fft.rfft(wave).abs().square()
    assert (power[:, :1000].sum(1) > 0.8 * power.sum(1)).all(), "no slope of the spectrum"
