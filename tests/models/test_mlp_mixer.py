"""Parts of the MLP-Mixer against plain formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from glottis.errors import ConfigError
from glottis.models import create_model
from glottis.models.mlp_mixer import GroupedLinear
from glottis.rng import torch_generator

SMALL = {"channels": 8, "num_blocks": 2, "embedding_size": 6, "features": {"num_mels": 12}}


def test_a_grouped_layer_is_a_grouped_convolution_of_one_frame() -> None:
    layer = GroupedLinear(12, 24, groups=3)
    convolution = nn.Conv1d(12, 24, 1, groups=3)
    convolution.load_state_dict(
        {"weight": layer.weight.detach()[..., None], "bias": layer.bias.detach()}
    )
    x = torch.randn(2, 7, 12, generator=torch_generator(2))
    expected = convolution(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(layer(x), expected)


def test_a_block_sees_one_frame_on_each_side() -> None:
    block = create_model("mlp_mixer", seed=0, **SMALL).network.blocks[0].eval()
    x = torch.randn(1, 9, 8, generator=torch_generator(3), requires_grad=True)
    block(x)[0, 4].sum().backward()
    assert x.grad is not None
    seen = (x.grad[0] != 0).any(dim=-1)
    assert seen.nonzero().flatten().tolist() == [3, 4, 5]


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="groups=3 does not divide channels=8"):
        create_model("mlp_mixer", groups=3, **SMALL)


def test_the_raw_network_needs_nine_filter_frames() -> None:
    network = create_model("mlp_mixer_raw", seed=0, channels=8, num_blocks=1).network
    assert network.filters.num_frames(network.min_samples) == 9
    assert network.filters.num_frames(network.min_samples - 1) == 8
