"""Conformer countermeasure: every module in a slow obvious form, padding, a short training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from glottis.errors import ModelError
from glottis.models import create_model
from glottis.models.conformer_cm import ConformerCm, ConformerCmConfig
from glottis.models.parts.conformer import (
    ConformerBlock,
    ConvolutionModule,
    FeedForward,
    RelativeAttention,
    by_difference,
)


def small(**options: int | float) -> ConformerCm:
    torch.manual_seed(3)
    config = {"embedding_size": 12, "num_blocks": 2, "heads": 3, "kernel_size": 7, **options}
    return ConformerCm(ConformerCmConfig(**config), 10)


def layer_norm(x: Tensor, module: torch.nn.LayerNorm) -> Tensor:
    mean = x.mean(dim=-1, keepdim=True)
    variance = (x - mean).square().mean(dim=-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * module.weight + module.bias


def test_by_difference_puts_each_score_where_it_belongs() -> None:
    frames = 5
    scores = torch.arange(frames * (2 * frames - 1.0)).view(frames, -1)
    placed = by_difference(scores)
    assert placed.shape == (frames, frames)
    for i in range(frames):
        for j in range(frames):
            assert placed[i, j] == scores[i, frames - 1 - (i - j)]


@pytest.mark.parametrize("max_distance", [2, 20])
def test_attention_equals_its_equation_for_every_pair_of_frames(max_distance: int) -> None:
    torch.manual_seed(1)
    attention = RelativeAttention(6, 2, max_distance, dropout=0.0).double()
    x = torch.randn(1, 7, 6, dtype=torch.float64)
    y = layer_norm(x[0], attention.norm)
    query = y @ attention.query.weight.T
    key, value = (y @ attention.key_value.weight.T).split(6, dim=1)
    rows = []
    for i in range(7):
        heads = []
        for head in (slice(0, 3), slice(3, 6)):
            scores = []
            for j in range(7):
                place = max(-max_distance, min(max_distance, i - j)) + max_distance
                vector = attention.positions.weight[place]
                scores.append(query[i, head] @ (key[j, head] + vector) / math.sqrt(3))
            weights = torch.softmax(torch.stack(scores), dim=0)
            heads.append(weights @ value[:, head])
        rows.append(attention.output(torch.cat(heads)))
    torch.testing.assert_close(attention(x)[0], torch.stack(rows))


@pytest.mark.parametrize("training", [False, True])
def test_the_convolution_module_equals_its_equations(training: bool) -> None:
    torch.manual_seed(1)
    module = ConvolutionModule(4, 2, 5, dropout=0.0).double()
    module.conv_norm.running_mean.normal_()
    module.conv_norm.running_var.uniform_(0.5, 2.0)
    module.train(training)
    mean, variance = module.conv_norm.running_mean.clone(), module.conv_norm.running_var.clone()
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    both = layer_norm(x, module.norm) @ module.up.weight.T + module.up.bias
    gated = both[..., :8] / (1 + torch.exp(-both[..., 8:]))
    convolved = torch.empty_like(gated)
    for t in range(9):
        for channel in range(8):
            total = module.conv.bias[channel].expand(2)
            for k in range(5):
                if 0 <= t + k - 2 < 9:
                    weight = module.conv.weight[channel, 0, 0, k]
                    total = total + weight * gated[:, t + k - 2, channel]
            convolved[:, t, channel] = total
    if training:
        mean = convolved.mean(dim=(0, 1))
        variance = (convolved - mean).square().mean(dim=(0, 1))
    normed = (convolved - mean) / (variance + 1e-5).sqrt()
    expected = (normed / (1 + torch.exp(-normed))) @ module.down.weight.T + module.down.bias
    torch.testing.assert_close(module(x), expected)


def test_a_block_is_macaron() -> None:
    torch.manual_seed(1)
    block = ConformerBlock(6, heads=2, kernel=3).double().eval()

    def feed_forward(module: FeedForward, x: Tensor) -> Tensor:
        hidden = layer_norm(x, module.norm) @ module.up.weight.T + module.up.bias
        swish = hidden / (1 + torch.exp(-hidden))
        return swish @ module.down.weight.T + module.down.bias

    x = torch.randn(2, 5, 6, dtype=torch.float64)
    y = x + feed_forward(block.before, x) / 2
    y = y + block.attention(y)
    y = y + block.convolution(y)
    y = y + feed_forward(block.after, y) / 2
    torch.testing.assert_close(block(x), layer_norm(y, block.norm))


def test_the_embedding_is_the_class_token_behind_the_last_block() -> None:
    network = small().eval()
    network.norm.running_mean.fill_(0.2)
    network.norm.running_var.fill_(0.7)
    features = torch.randn(2, 10, 14)
    x = (network.project(features.transpose(1, 2)) - 0.2) / (0.7 + 1e-5) ** 0.5
    x = torch.cat([network.class_token.repeat(2, 1, 1), functional.selu(x)], dim=1)
    for block in network.blocks:
        x = block(x)
    output = network(features)
    torch.testing.assert_close(output.embedding, x[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits, network.classifier(output.embedding))


def test_padding_changes_nothing() -> None:
    network = small().eval()
    features = torch.randn(3, 10, 20)
    lengths = torch.tensor([20, 9, 1])
    padded = features.clone()
    for item, length in enumerate(lengths):
        padded[item, :, length:] = torch.nan if item == 2 else 1e3
    with torch.no_grad():
        together = network(padded, lengths).logits
        alone = [network(features[i : i + 1, :, :n]).logits[0] for i, n in enumerate(lengths)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-5)


def test_the_token_hears_the_whole_utterance() -> None:
    network = small(num_blocks=1).eval()
    features = torch.randn(1, 10, 60, requires_grad=True)
    (slope,) = torch.autograd.grad(network(features).logits[0, 1], features)
    assert (slope.abs().sum(dim=1) > 0).all()


def test_a_frame_every_twenty_milliseconds() -> None:
    model = create_model("conformer_cm", num_blocks=1, embedding_size=8, seed=0)
    assert model.frontend.num_frames(64_600) == 64_600 // 320 + 1
    assert model.window.seconds is None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"heads": 5}, "5 heads"), ({"kernel_size": 30}, "is even")],
)
def test_impossible_sizes_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model("conformer_cm", **options)


def test_it_takes_the_features_of_a_self_supervised_network() -> None:
    network = ConformerCm(ConformerCmConfig(num_blocks=1), 1024).eval()
    with torch.no_grad():
        assert network(torch.randn(2, 1024, 50)).logits.shape == (2, 2)


def test_a_short_training_separates_two_kinds_of_noise() -> None:
    network = small(dropout=0.1).train()
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(8, 10, 30, generator=rng)
    features[4:] = features[4:].cumsum(dim=2) / 4  # slow movements against fast ones
    labels = torch.tensor([0] * 4 + [1] * 4)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = functional.cross_entropy(network(features).logits, labels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 < 0.5 < losses[0], losses
