"""Angular prototypical loss: who is query, who is prototype, what the labels do."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from glottis.errors import ModelError
from glottis.losses import LOSSES, build_loss


def build(**options: object) -> torch.nn.Module:
    return build_loss(LOSSES.config("angular_prototypical", **options), 8, 0)


def test_the_prototype_is_the_mean_of_the_other_utterances() -> None:
    x, loss = torch.randn(4, 3, 8), build(initial_scale=5.0, initial_bias=1.0)
    cosine = functional.normalize(x[:, 0]) @ functional.normalize((x[:, 1] + x[:, 2]) / 2).T
    expected = functional.cross_entropy(5.0 * cosine + 1.0, torch.arange(4))
    torch.testing.assert_close(loss(x, torch.arange(4)).loss, expected)


def test_the_labels_only_name_the_speakers() -> None:
    x, loss = torch.randn(4, 2, 8), build()
    assert torch.equal(loss(x, torch.arange(4)).loss, loss(x, torch.tensor([9, 3, 7, 1])).loss)


def test_a_negative_scale_does_not_turn_the_task_around() -> None:
    x, loss = torch.randn(4, 2, 8), build()
    loss.scale.data.fill_(-3.0)
    value = loss(x, torch.arange(4)).loss
    assert float(value.detach()) == pytest.approx(1.386294, abs=1e-4)  # ln 4
    value.backward()
    assert float(loss.scale.grad) != 0  # it can still recover


def test_one_utterance_per_speaker_is_refused() -> None:
    with pytest.raises(ModelError, match="each speaker has 1"):
        build()(torch.randn(4, 1, 8), torch.arange(4))


def test_chance_follows_the_learned_scale() -> None:
    loss = build()
    before = loss.chance_loss(50)
    loss.scale.data.fill_(1e-3)
    assert loss.chance_loss(50) < before
    assert loss.chance_loss(50) == pytest.approx(3.912, abs=0.001)  # ln 50


@pytest.mark.parametrize("mining", ["hard", "semi_hard", "batch_hard", "batch_all"])
def test_triplets_of_one_speaker_are_refused(mining: str) -> None:
    loss = build_loss(LOSSES.config("triplet", mining=mining), 8, 0)
    with pytest.raises(ModelError, match="one speaker has no triplet"):
        loss(torch.randn(1, 3, 8), torch.zeros(1, dtype=torch.long))
