"""LCNN: published size, its mathematics written out, what a step hears, and a short training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.errors import ModelError
from glottis.models import create_model
from glottis.models.lcnn import Lcnn, LcnnConfig, LightLayer, max_feature_map


def small(**options: float) -> Lcnn:
    torch.manual_seed(3)
    return Lcnn(LcnnConfig(embedding_size=8, **options), 20)


def with_statistics(network: nn.Module) -> nn.Module:
    """The network with running statistics as after some training."""
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return network


def test_it_has_the_published_size() -> None:
    # Jung et al., "AASIST", ICASSP 2022, table 2: LCNN-LSTM-sum, 276 k
    assert round(create_model("lcnn", seed=0).num_parameters, -3) == 276_000


def test_max_feature_map_is_the_larger_of_both_halves() -> None:
    x = torch.randn(2, 6, 3, 4)
    y = max_feature_map(x)
    assert y.shape == (2, 3, 3, 4)
    for b in range(2):
        for c in range(3):
            for f in range(3):
                for t in range(4):
                    assert y[b, c, f, t] == max(x[b, c, f, t], x[b, 3 + c, f, t])


@pytest.mark.parametrize("pool", [False, True])
def test_a_norm_inside_the_convolution_changes_nothing(pool: bool) -> None:
    layer = LightLayer(3, 4, 3, pool=pool, norm=True)
    with_statistics(layer).eval()
    x = torch.randn(2, 3, 7, 9)
    y = max_feature_map(layer.conv(x))
    expected = layer.norm(functional.max_pool2d(y, 2) if pool else y)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-6)


def written_out(network: Lcnn, features: Tensor) -> Tensor:
    """Logits in eval mode, on maps of (frames, features) as the published code has them."""
    pools = {1, 3, 5, 9}
    norms = {2, 3, 4, 6, 7, 8}
    x = features.transpose(1, 2)[:, None]  # (B, 1, T, F)
    for number, layer in enumerate(network.layers, start=1):
        weight, bias = layer.conv.weight, layer.conv.bias
        x = functional.conv2d(x, weight.transpose(2, 3), bias, padding=weight.shape[2] // 2)
        x = torch.stack(x.split(x.shape[1] // 2, dim=1)).amax(dim=0)
        x = functional.max_pool2d(x, 2) if number in pools else x
        if number in norms:
            mean, variance = layer.norm.running_mean, layer.norm.running_var
            x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        else:
            assert layer.norm is None
    steps = x.permute(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)
    pooled = (network.lstm(steps)[0] + steps).mean(dim=1)
    return network.classifier(network.embedding(pooled))


def test_the_network_equals_the_published_mathematics() -> None:
    network = small()
    with_statistics(network).eval()
    features = torch.randn(3, 20, 53)
    with torch.no_grad():
        expected = written_out(network, features)
        torch.testing.assert_close(network(features).logits, expected, rtol=1e-4, atol=1e-5)


def test_the_lstms_take_one_step_per_sixteen_frames() -> None:
    network = small().eval()
    steps = []
    hook = network.lstm.register_forward_hook(
        lambda _module, inputs, _output: steps.append(tuple(inputs[0].shape[1:]))
    )
    with torch.no_grad():
        for frames in (16, 31, 32, 401):
            network(torch.randn(1, 20, frames))
    hook.remove()
    assert steps == [(1, 32), (1, 32), (2, 32), (25, 32)]


def test_a_step_hears_sixty_four_frames() -> None:
    # first layer and pool, then a 3x3 layer and pool at rates 2 and 4, two layers and pool at 8
    size = 1 + (4 + 1) + 2 * (2 + 1) + 4 * (2 + 1) + 8 * (2 + 2 + 1)
    first = 5 * 16 - (2 + 2 + 4 + 8 + 8)  # of step 5; the padding of each layer
    network = small().double().eval()
    generator = torch.Generator().manual_seed(2)
    heard = torch.zeros(160, dtype=torch.bool)
    for _ in range(8):  # a maximum hears one of its inputs at a time
        features = torch.randn(1, 20, 160, dtype=torch.float64, generator=generator)
        features.requires_grad_()
        maps = network.layers(features[:, None])
        assert maps.shape[3] == 10
        (slope,) = torch.autograd.grad(maps[..., 5].sum(), features)
        heard |= (slope != 0).any(dim=1)[0]
    frames = heard.nonzero().flatten()
    assert (int(frames.min()), int(frames.max())) == (first, first + size - 1)


def test_the_average_leaves_padding_out() -> None:
    network = small().eval()
    steps = torch.randn(2, 32, 6)
    lengths = torch.tensor([6, 2])
    pooled = network.pooling(steps, lengths)
    torch.testing.assert_close(pooled[1], steps[1, :, :2].mean(dim=1))


def test_too_few_features_are_refused() -> None:
    with pytest.raises(ModelError, match="at least 16 features"):
        create_model("lcnn", features={"num_coefficients": 15, "delta_orders": 0})


def test_a_short_training_separates_two_kinds_of_noise() -> None:
    network = small(dropout=0.1, lstm_layers=1).train()
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(8, 20, 32, generator=rng)
    features[4:] = features[4:].cumsum(dim=2) / 4  # slow movements against fast ones
    labels = torch.tensor([0] * 4 + [1] * 4)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = functional.cross_entropy(network(features).logits, labels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 < 0.6 < losses[0], losses
