"""The decoder of the LSTM autoencoder: not there unless a loss wants it, and trainable if so."""

from __future__ import annotations

from typing import Any

import torch

from glottis.models import Model, Reconstructed, create_model
from glottis.rng import torch_generator

SMALL: dict[str, Any] = {
    "embedding_size": 8,
    "latent_size": 6,
    "hidden_size": 10,
    "lstm_size": 5,
    "features": {"num_mels": 12},
    "dropout": 0.0,
    "lstm_dropout": 0.0,
}
WAVE = 0.1 * torch.randn(3, 4000, generator=torch_generator(8))


def model(**options: Any) -> Model:
    return create_model("lstm_autoencoder", seed=1, **SMALL, **options)


def decoder_calls(net: Model) -> list[int]:
    calls: list[int] = []
    net.network.decoder.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_without_a_wish_the_decoder_is_neither_computed_nor_trained() -> None:
    plain = model()
    calls = decoder_calls(plain)
    for training in (True, False):
        assert plain.train(training)(WAVE).shape == (3, 8)
    assert not calls
    assert not any(p.requires_grad for p in plain.network.decoder.parameters())
    assert plain.network.unused_parameters == ("decoder.*",)


def test_with_the_wish_training_gives_reconstruction_and_target() -> None:
    asked = model(reconstruct=True)
    output = asked.train()(WAVE)
    assert isinstance(output, Reconstructed)
    features = asked.frontend(WAVE)
    assert output.reconstruction.shape == features.shape
    assert torch.equal(output.target, features.tanh())
    assert not output.target.requires_grad
    assert asked.network.unused_parameters == ()


def test_the_wish_changes_no_embedding() -> None:
    plain, asked = model(), model(reconstruct=True)
    assert plain.state_dict().keys() == asked.state_dict().keys()
    assert torch.equal(plain.train()(WAVE), asked.train()(WAVE).embedding)
    calls = decoder_calls(asked)
    assert torch.equal(plain.eval()(WAVE), asked.eval()(WAVE))
    assert not calls


def test_the_reconstruction_error_trains_encoder_and_decoder() -> None:
    asked = model(reconstruct=True).train()
    output = asked(WAVE)
    (output.reconstruction - output.target).square().mean().backward()
    for part in (asked.network.encoder, asked.network.decoder):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in part.parameters())
    assert asked.network.embedding.weight.grad is None


def test_a_few_steps_bring_the_reconstruction_nearer() -> None:
    asked = model(reconstruct=True).train()
    optimiser = torch.optim.Adam(asked.parameters(), lr=1e-2)
    errors = []
    for _ in range(30):
        output = asked(WAVE)
        error = (output.reconstruction - output.target).square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.7 * errors[0]


def test_one_layer_has_no_dropout_between_layers() -> None:
    one = create_model("lstm_autoencoder", seed=1, **{**SMALL, "lstm_dropout": 0.3}, lstm_layers=1)
    assert one.network.lstm.dropout == 0.0
