"""AASIST's own promises: shapes, masking, the dead batch norm, layouts, precision, compilation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glottis.errors import ModelError
from glottis.models import create_model
from glottis.models.aasist import ResidualBlock, pool_time
from glottis.rng import generator

SMALL = {"channels": (8, 8), "graph_sizes": (8, 8)}


def small(**options: object) -> nn.Module:
    return create_model("aasist", seed=0, **{**SMALL, **options})


def wave(batch: int = 2, samples: int = 6000) -> Tensor:
    return torch.from_numpy(
        generator(1, "wave").standard_normal((batch, samples)).astype(np.float32) * 0.1
    )


def test_the_shortest_input_is_said_and_meant() -> None:
    model = small().eval()
    assert model.min_samples == 2315
    assert model(wave(samples=2315)).logits.shape == (2, 2)
    with pytest.raises(ModelError, match="2314 samples; this model needs at least 2315"):
        model(wave(samples=2314))


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ModelError, match="kernel_size=128"):
        small(kernel_size=128)


def test_the_dead_batch_norm_is_kept_and_never_touched() -> None:
    model = small().train()
    dead = {n: v.clone() for n, v in model.state_dict().items() if "dead_norm" in n}
    assert len(dead) == 5 * 5
    model(wave()).logits.sum().backward()
    for name, value in dead.items():
        assert torch.equal(model.state_dict()[name], value), name
    for name, parameter in model.named_parameters():
        assert ("dead_norm" in name) == (parameter.grad is None), name
        assert ("dead_norm" in name) != parameter.requires_grad, name


def test_folding_the_batch_norm_changes_nothing() -> None:
    block = ResidualBlock(4, 6, dead_norm=False).double()
    nn.init.normal_(block.norm.weight)
    nn.init.normal_(block.norm.bias)
    block(torch.randn(2, 4, 5, 12, dtype=torch.float64))  # moves the running statistics
    x = torch.randn(2, 4, 5, 12, dtype=torch.float64)
    block.eval()
    folded = block(x)
    y = nn.functional.selu(block.norm(block.conv1(x)))
    plain = nn.functional.max_pool2d(block.conv2(y) + block.shortcut(x), (1, 3))
    torch.testing.assert_close(folded, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("frames", [3, 4, 5, 6, 20])
def test_the_pool_without_gradients_gives_the_same_values(frames: int) -> None:
    x = torch.randn(2, 3, 4, frames)
    with torch.no_grad():
        assert torch.equal(pool_time(x), nn.functional.max_pool2d(x, (1, 3)))


def test_frequency_mask_acts_in_training_only() -> None:
    model = small(frequency_mask=True).train()
    drawn = model.draw(generator(0, "step", 0))
    assert drawn["filter_mask"].shape == (70,)
    network = model.network
    mask = torch.ones(70)
    mask[:35] = 0
    masked = network.envelope(wave(), mask)
    assert (masked[:, :, :11] == 0).all()
    assert (masked[:, :, 12:] != 0).any()
    with pytest.raises(ModelError, match=r"model\.draw\(generator\)"):
        model(wave())
    model(wave(), **drawn)
    assert model.eval().draw(generator(0)) == {}
    model(wave())  # eval mode needs no mask


def test_frequency_mask_is_drawn_as_published() -> None:
    model = small(frequency_mask=True).train()
    rng = generator(3, "masks")
    masks = torch.stack([model.draw(rng)["filter_mask"] for _ in range(2000)])
    widths = (masks == 0).sum(1)
    assert widths.min() == 0
    assert widths.max() == 19
    assert abs(float(widths.float().mean()) - 9.5) < 0.4  # uniform over 0..19
    for mask in masks:  # one run each
        assert int((mask.diff() != 0).sum()) <= 2
    edges = (masks[:, 0] == 0).any() and (masks[:, -1] == 0).any()
    assert edges
    again = model.draw(generator(3, "masks"))["filter_mask"]
    assert torch.equal(again, masks[0])


def test_without_frequency_mask_nothing_is_drawn() -> None:
    model = small().train()
    rng = generator(0)
    assert model.draw(rng) == {}
    assert rng.random() == generator(0).random()


def test_dropout_rates_come_from_the_options() -> None:
    rates = {"attention_dropout": 0.01, "pool_dropout": 0.02, "branch_dropout": 0.03}
    model = small(**rates, head_dropout=0.04)
    found = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert sorted(set(found)) == [0.01, 0.02, 0.03, 0.04]
    off = small(**dict.fromkeys(rates, 0.0), head_dropout=0.0).train()
    assert torch.equal(off(wave()).logits, off(wave()).logits)


def test_channels_last_gives_the_same_output_and_keeps_the_layout() -> None:
    plain, last = small().eval(), small().eval().to(memory_format=torch.channels_last)
    seen = []
    last.network.encoder.register_forward_hook(lambda _m, _i, y: seen.append(y))
    torch.testing.assert_close(last(wave()).logits, plain(wave()).logits, rtol=1e-4, atol=1e-5)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_graph_half_is_float32_under_autocast(dtype: torch.dtype) -> None:
    model = small().train()
    types: list[torch.dtype] = []
    for part in (model.network.spectral_attention, model.network.branches[0].first):
        part.pair_projection.register_forward_hook(lambda _m, _i, y: types.append(y.dtype))
    model.network.encoder.register_forward_hook(lambda _m, _i, y: types.append(y.dtype))
    with torch.autocast("cpu", dtype=dtype):
        output = model(wave())
    output.logits.sum().backward()
    assert types == [dtype, torch.float32, torch.float32]
    assert output.logits.dtype == torch.float32


@pytest.mark.parametrize("training", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_one_graph_without_breaks(training: bool) -> None:
    rates = dict.fromkeys(
        ("attention_dropout", "pool_dropout", "branch_dropout", "head_dropout"), 0.0
    )
    model = small(**rates).train(training)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(wave()).logits, model(wave()).logits)


def test_the_wave_can_ask_for_a_gradient() -> None:
    x = wave().requires_grad_()
    small().eval()(x).score.sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().max()) > 0
