"""Res2Net countermeasures: sizes of the released code, blocks written out, short trainings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.errors import ModelError
from glottis.models import create_model
from glottis.models.res2net_cm import (
    Res2Block,
    Res2NetCm,
    Res2NetCmConfig,
    SeRes2NetCmConfig,
    Shortcut,
)


def small(config: type[Res2NetCmConfig] = Res2NetCmConfig) -> Res2NetCm:
    torch.manual_seed(3)
    return Res2NetCm(config(num_blocks=(1, 2, 1, 1), channels=8), 12)


def with_statistics(network: nn.Module) -> nn.Module:
    """The network with running statistics as after some training."""
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return network


def released_size(width: int, scale: int, reduction: int | None) -> int:
    """Parameters, added up from the layer sizes in the authors' released code."""
    count = 9 * (16 + 16 * 16 + 16 * 16) + 3 * 2 * 16
    before = 16
    for channels, blocks in ((16, 3), (32, 4), (64, 6), (128, 3)):
        group, after = int(channels * width / 64), 2 * channels
        for number in range(blocks):
            count += before * group * scale + 2 * group * scale
            count += (scale - 1) * (9 * group * group + 2 * group)
            count += group * scale * after + 2 * after
            if reduction is not None:
                count += 2 * after * (after // reduction)
            if number == 0:
                count += before * after + 2 * after
            before = after
    return count + 256 * 2 + 2


@pytest.mark.parametrize(
    ("name", "width", "scale", "reduction"),
    [
        ("res2net50_cm", 26, 4, None),
        ("se_res2net50_cm", 26, 4, 16),
        ("res2net50_cm", 14, 8, None),
        ("se_res2net50_cm", 26, 8, 16),
    ],
)
def test_it_has_the_size_of_the_released_code(
    name: str, width: int, scale: int, reduction: int | None
) -> None:
    model = create_model(name, width=width, scale=scale, seed=0)
    assert model.num_parameters == released_size(width, scale, reduction)


def written_out(block: Res2Block, x: Tensor) -> Tensor:
    """Gao et al., equation 1, with the groups joined step by step."""
    y = torch.relu(block.reduce.norm(block.reduce.conv(x)))
    size = y.shape[1] // (len(block.scales) + 1)
    joined = y[:, :0]
    for i, scale in enumerate(block.scales):
        into = y[:, i * size : (i + 1) * size]
        if i > 0 and not block.first:
            into = into + joined[:, -size:]
        heard = torch.relu(scale.norm(scale.conv(into)))
        joined = heard if i == 0 else torch.cat([joined, heard], dim=1)
    last = y[:, -size:]
    if block.first:
        kernel = torch.full((size, 1, 3, 3), 1 / 9)
        last = functional.conv2d(last, kernel, stride=block.stride, padding=1, groups=size)
    y = block.expand_norm(block.expand(torch.cat([joined, last], dim=1)))
    if block.se is not None:
        gate = torch.relu(y.mean(dim=(2, 3)) @ block.se.reduce.weight.T) @ block.se.expand.weight.T
        y = y * torch.sigmoid(gate)[:, :, None, None]
    return torch.relu(y + (x if block.shortcut is None else block.shortcut(x)))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("config", [Res2NetCmConfig, SeRes2NetCmConfig])
def test_a_block_equals_its_equations(
    config: type[Res2NetCmConfig], first: bool, training: bool
) -> None:
    torch.manual_seed(4)
    block = Res2Block(16 if first else 32, 16, 2 if first else 1, config(), first=first)
    with_statistics(block).train(training)
    x = torch.randn(2, 16 if first else 32, 7, 9)
    with torch.no_grad():
        expected = written_out(block, x)
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_each_group_hears_further_than_the_one_before() -> None:
    block = Res2Block(32, 16, 1, Res2NetCmConfig(), first=False).eval()
    x = torch.zeros(1, 4 * block.group, 15, 15)
    x[:, :, 7, 7] = 1.0
    with torch.no_grad():
        for scale in block.scales:
            scale.conv.weight.fill_(1.0)
        rows = [int((y.amax(dim=(0, 1, 3)) > 0).sum()) for y in block._heard(x)]
    assert rows == [3, 5, 7, 1]


def test_a_shortcut_averages_what_there_is_at_an_odd_edge() -> None:
    shortcut = Shortcut(1, 1, 2).eval()
    nn.init.ones_(shortcut.conv.weight)
    x = torch.arange(9.0).view(1, 1, 3, 3)
    expected = torch.tensor([[2.0, 3.5], [6.5, 8.0]]) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(shortcut(x)[0, 0].detach(), expected)


def test_three_stages_halve_rows_and_frames() -> None:
    network = small().eval()
    shapes = []
    hook = network.stages.register_forward_hook(lambda *args: shapes.append(tuple(args[2].shape)))
    with torch.no_grad():
        for frames in (1, 8, 9, 400):
            network(torch.randn(1, 12, frames))
    hook.remove()
    assert shapes == [(1, 128, 2, 1), (1, 128, 2, 1), (1, 128, 2, 2), (1, 128, 2, 50)]


def test_it_hears_four_hundred_frames() -> None:
    model = create_model("res2net50_cm", channels=4, num_blocks=[1, 1, 1, 1], seed=0)
    samples = model.window.samples(100_000, model)
    assert model.frontend.num_frames(samples) == 400


def test_the_logits_are_log_probabilities() -> None:
    network = small(SeRes2NetCmConfig).eval()
    with torch.no_grad():
        output = network(torch.randn(3, 12, 20))
    raw = functional.linear(output.embedding, network.classifier.weight, network.classifier.bias)
    torch.testing.assert_close(output.logits, functional.log_softmax(raw, dim=1).detach())


def test_a_group_without_channels_is_refused() -> None:
    with pytest.raises(ModelError, match="no channels"):
        create_model("res2net50_cm", channels=4, width=8)


@pytest.mark.parametrize("config", [Res2NetCmConfig, SeRes2NetCmConfig])
def test_a_short_training_separates_two_kinds_of_noise(config: type[Res2NetCmConfig]) -> None:
    network = small(config).train()
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(8, 12, 24, generator=rng)
    features[4:] = features[4:].cumsum(dim=2) / 4  # slow movements against fast ones
    labels = torch.tensor([0] * 4 + [1] * 4)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        loss = functional.cross_entropy(network(features).logits, labels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0], losses
