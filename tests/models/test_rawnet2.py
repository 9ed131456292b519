"""RawNet2: published size and cost, the published mathematics written out, and a short training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from glottis.errors import ConfigError, ModelError
from glottis.models import SpoofModel, create_model, rawnet2


@pytest.fixture(scope="module")
def published() -> SpoofModel:
    model = create_model("rawnet2", seed=0)
    assert isinstance(model, SpoofModel)
    return model.eval()


def small() -> SpoofModel:
    options = {"channels": (6, 8), "gru_size": 16, "gru_layers": 2, "embedding_size": 12}
    model = create_model("rawnet2", seed=0, num_filters=6, kernel_size=129, **options)
    assert isinstance(model, SpoofModel)
    return model


def test_it_has_the_size_and_cost_of_the_published_code(published) -> None:
    # 17,621,410 parameters, 4.18 GFLOP for 64,600 samples with the filters as a convolution
    assert published.num_parameters == 17_621_410
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        published(torch.randn(1, 64_600))  # an FFT is not counted
    filters = 2 * 20 * 1025 * (64_600 - 1024)
    assert counter.get_total_flops() + filters == pytest.approx(4.18e9, rel=2e-3)


def test_what_it_hears_is_the_published_window(published) -> None:
    assert published.window.samples(30_000, published) == 64_600
    steps = []
    hook = published.network.gru.register_forward_hook(
        lambda _module, inputs, _output: steps.append(inputs[0].shape[1])
    )
    with torch.inference_mode():
        published(torch.randn(1, published.min_samples))
        published(torch.randn(1, published.min_samples + 3**7))
        published(torch.randn(1, 64_600))
    hook.remove()
    assert steps == [1, 2, 29]


def written_out(network: rawnet2.RawNet2, wave: Tensor) -> Tensor:
    """Log probabilities in the order of operations of the published code, in eval mode."""
    x = functional.conv1d(wave[:, None], network.filters[:, None])
    x = functional.selu(network.input_norm(functional.max_pool1d(x.abs(), 3)))
    for block in network.blocks:
        y = functional.leaky_relu(block.norm(block.conv1(x)), 0.3)
        y = block.conv2(y) + (x if block.shortcut is None else block.shortcut(x))
        y = functional.max_pool1d(y, 3)
        gate = torch.sigmoid(block.gate(y.mean(dim=-1)))[..., None]
        x = y * gate + gate
    x = functional.selu(network.output_norm(x)).permute(0, 2, 1)
    last = network.gru(x)[0][:, -1]
    return functional.log_softmax(network.classifier(network.embedding(last)), dim=1)


def test_the_fast_form_equals_the_published_mathematics() -> None:
    model = small().eval()
    torch.manual_seed(1)
    wave = torch.randn(3, 9000) * 0.1
    with torch.inference_mode():
        expected = written_out(model.network, wave)
        torch.testing.assert_close(model(wave).logits, expected, rtol=1e-4, atol=1e-5)


def test_confident_scores_stay_apart() -> None:
    # as float32 log_softmax they would all be 0, and a ranking would see ties
    model = small().eval()
    with torch.no_grad():
        model.network.classifier.bias.copy_(torch.tensor([0.0, 30.0]))
        scores = model(torch.randn(4, 9000) * torch.tensor([[0.01], [0.1], [1.0], [3.0]])).score
    assert (scores < 0).all()
    assert len(set(scores.tolist())) == 4


def test_an_even_number_of_taps_is_refused() -> None:
    with pytest.raises(ModelError, match="is even"):
        create_model("rawnet2", kernel_size=1024)


def test_more_taps_than_an_fft_block_has_room_for_are_refused() -> None:
    with pytest.raises(ConfigError, match="kernel_size"):
        create_model("rawnet2", kernel_size=8193)


def test_a_short_training_separates_two_kinds_of_noise() -> None:
    model = small().train()
    rng = torch.Generator().manual_seed(0)
    wave = torch.randn(8, 4000, generator=rng) * 0.1
    wave[4:] = wave[4:].cumsum(dim=1) * 0.1  # brown noise against white noise
    labels = torch.tensor([0] * 4 + [1] * 4)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trainable, lr=3e-3)
    losses = []
    for _ in range(50):
        optimiser.zero_grad()
        loss = functional.cross_entropy(model(wave).logits, labels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 < 0.5 < losses[0]
