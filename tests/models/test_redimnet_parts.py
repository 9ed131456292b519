"""The layers of ReDimNet against their textbook forms on (B, C, F, T) and (B, C, T)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.errors import ModelError
from glottis.models import create_model
from glottis.models.parts.aggregation import LayerAggregation
from glottis.models.parts.maps import FrequencyGate, MapConv, MergeBins, Pointwise, normed
from glottis.models.parts.sequences import TimeConv, TransformerLayer
from glottis.models.redimnet2 import SequenceGroupNorm


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_map(x: Tensor) -> Tensor:
    """(B, C, F, T) -> (B, T, F, C)."""
    return x.permute(0, 3, 2, 1).contiguous()


def trained_norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm that has seen data."""
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.weight, 1.0, 0.1, generator=torch.Generator().manual_seed(1))
    norm.bias.data.copy_(noise(channels, seed=2))
    norm(3 * noise(4, channels, 5, 5, seed=3) + 1)
    return norm


@pytest.mark.parametrize(
    ("kernel", "stride", "groups"),
    [((3, 3), (1, 1), 1), ((3, 3), (1, 1), 4), ((2, 4), (2, 4), 2), ((1, 2), (1, 2), 4)],
)
def test_a_map_convolution_is_the_published_one(kernel, stride, groups) -> None:
    x = noise(2, 8, 6, 12)
    conv = MapConv(8, 16, kernel, stride=stride, groups=groups)
    padding = 1 if kernel == (3, 3) else 0
    expected = functional.conv2d(x, conv.weight, conv.bias, stride, padding, groups=groups)
    torch.testing.assert_close(conv(as_map(x)), as_map(expected), rtol=1e-4, atol=1e-5)


def test_merging_bins_is_a_strided_convolution() -> None:
    x = noise(2, 4, 6, 5)
    merge = MergeBins(4, 7, 3)
    expected = functional.conv2d(x, merge.weight, merge.bias, stride=(3, 1))
    torch.testing.assert_close(merge(as_map(x)), as_map(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_a_norm_behind_a_layer_is_the_same_folded_or_not(training: bool) -> None:
    x = noise(3, 8, 6, 10)
    for layer in (MapConv(8, 8, groups=2, bias=False), MapConv(8, 8), Pointwise(8, 8)):
        norm = trained_norm(8).train(training)
        textbook = trained_norm(8).train(training)
        expected = textbook(layer(as_map(x)).permute(0, 3, 2, 1))
        found = layer(as_map(x), norm)
        torch.testing.assert_close(found, as_map(expected), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, textbook.running_var)


def test_a_norm_counts_every_frame_and_bin_of_the_batch() -> None:
    x = noise(3, 8, 6, 10)
    norm, textbook = trained_norm(8), trained_norm(8)
    torch.testing.assert_close(normed(norm, as_map(x)), as_map(textbook(x)))
    torch.testing.assert_close(norm.running_mean, textbook.running_mean)
    torch.testing.assert_close(norm.running_var, textbook.running_var)


def test_a_convolution_over_time_is_the_published_one() -> None:
    x = noise(2, 6, 31)
    conv = TimeConv(6, 19)
    expected = functional.conv1d(x, conv.weight[:, :, 0], conv.bias, padding=9, groups=6)
    found = conv(x.transpose(1, 2))
    torch.testing.assert_close(found, expected.transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_attention_scales_by_the_width_of_a_head() -> None:
    x = noise(2, 9, 16)
    layer = TransformerLayer(16, 32)
    q, k, v = (
        project(x).view(2, 9, 4, 4).transpose(1, 2)
        for project in (layer.query, layer.key, layer.value)
    )
    weights = torch.softmax(0.5 * q @ k.transpose(-1, -2), dim=-1)
    y = layer.norm1(x + layer.output((weights @ v).transpose(1, 2).reshape(2, 9, 16)))
    expected = layer.norm2(y + layer.down(functional.gelu(layer.up(y), approximate="tanh")))
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_the_gate_hears_the_mean_of_every_bin() -> None:
    x = noise(2, 5, 6, 7)
    gate = FrequencyGate(6, 32)
    hidden = torch.relu(gate.reduce(x.mean(dim=(1, 3))))
    expected = x * torch.sigmoid(gate.expand(hidden))[:, None, :, None]
    torch.testing.assert_close(gate(as_map(x)), as_map(expected))


def test_an_aggregate_is_the_sum_of_repeated_frames() -> None:
    layer = LayerAggregation(3, 5)
    layer.weight.data.copy_(noise(1, 3, 5, 1))
    full, half, quarter = noise(2, 8, 5), noise(2, 4, 5, seed=1), noise(2, 2, 5, seed=2)
    repeated = [full, half.repeat_interleave(2, 1), quarter.repeat_interleave(4, 1)]
    weights = torch.softmax(layer.weight, dim=1)  # (1, 3, C, 1)
    expected = sum(weights[:, i].transpose(1, 2) * x for i, x in enumerate(repeated))
    torch.testing.assert_close(layer(full, half, quarter), expected)
    torch.testing.assert_close(layer(full, *repeated[1:]), expected)


def test_a_new_aggregate_is_the_mean() -> None:
    sequences = [noise(2, 4, 5, seed=seed) for seed in range(3)]
    found = LayerAggregation(3, 5)(*sequences)
    torch.testing.assert_close(found, torch.stack(sequences).mean(0))


def test_a_group_norm_of_a_sequence_ignores_repetition() -> None:
    norm = SequenceGroupNorm(3, 12)
    norm.weight.data.copy_(noise(12))
    x = noise(2, 6, 12)
    expected = functional.group_norm(x.transpose(1, 2), 3, norm.weight, norm.bias).transpose(1, 2)
    torch.testing.assert_close(norm(x), expected)
    repeated = norm(x.repeat_interleave(4, 1))
    torch.testing.assert_close(repeated, expected.repeat_interleave(4, 1), rtol=1e-4, atol=1e-5)


def test_a_map_and_its_sequence_are_the_same_memory() -> None:
    network = create_model("redimnet_b0", seed=0).network.eval()
    with torch.inference_mode():
        (stem, *_) = network.outputs(noise(1, 60, 20))
    assert stem.is_contiguous()
    assert stem.unflatten(2, (60, 10)).data_ptr() == stem.data_ptr()


@pytest.mark.parametrize("option", ["aggregation_dropout", "projection_dropout"])
def test_dropout_acts_in_training_only(option: str) -> None:
    model = create_model("redimnet_b0", seed=0, **{option: 0.5})
    features = noise(4, 60, 40)
    network = model.network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0
    with torch.no_grad():
        assert not torch.equal(network(features), network(features))
        network.eval()
        assert torch.equal(network(features), network(features))


def test_the_first_aggregation_is_kept_and_never_computed() -> None:
    network = create_model("redimnet_b0", seed=0).network.eval()
    features = noise(1, 60, 20)
    with torch.inference_mode():
        before = network(features)
        network.stages[0].aggregation.weight.fill_(float("nan"))
        assert torch.equal(network(features), before)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("redimnet_b1", {"features": {"num_mels": 80}}, r"merges 3 bins each, but has 40"),
        ("redimnet_b2", {"group_channels": 64}, r"cannot share 16 channels out to 0 groups"),
        ("redimnet_b6", {"channels": 50}, r"cannot share 200 channels out to 6 groups"),
        ("redimnet_b0", {"channels": 9}, r"are no 4 heads"),
        ("redimnet2_b0", {"features": {"num_mels": 60}}, r"stage 5 merges 2 bins each"),
        ("redimnet2_b0", {"channels": 13}, r"are no 4 heads"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(name, options, reason) -> None:
    with pytest.raises(ModelError, match=reason):
        create_model(name, **options)
