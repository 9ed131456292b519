"""Deep SE-ResNets: the blocks have the published sizes, and a few steps lower the loss."""

from __future__ import annotations

import pytest
import torch

from glottis.models import create_model
from glottis.models.parts.residual import residual_stages
from glottis.rng import generator

# timm 1.0, table of results: legacy_seresnet34, 50, 101, 152; the paper: 25 M + 2.5 M for 50
PUBLISHED = {
    "resnetse34": (False, 21.96),
    "resnetse50": (True, 28.09),
    "resnetse101": (True, 49.33),
    "resnetse152": (True, 66.82),
}
IMAGE_STEM = 3 * 64 * 7 * 7 + 2 * 64
CLASSES = 1000


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_stages_have_the_published_size(name: str) -> None:
    bottleneck, published = PUBLISHED[name]
    config = create_model(name, channels=4, seed=0).config
    assert config.bottleneck == bottleneck
    with torch.device("meta"):
        stages, width, _ = residual_stages(
            config.num_blocks, 64, 80, bottleneck=bottleneck, reduction=16
        )
    count = sum(parameter.numel() for parameter in stages.parameters())
    count += IMAGE_STEM + (width + 1) * CLASSES
    assert round(count / 1e6, 2) == published


def test_one_stage_after_the_other_halves_rows_and_frames() -> None:
    stages, channels, rows = residual_stages((1, 1, 1, 1), 4, 81, bottleneck=True, reduction=4)
    maps = stages(torch.zeros(1, 4, 81, 33))
    assert maps.shape == (1, channels, rows, 5)
    assert (channels, rows) == (4 * 8 * 4, 11)


def test_a_few_steps_lower_the_loss() -> None:
    model = create_model(
        "resnetse50", num_blocks=[1, 1, 1, 1], channels=4, embedding_size=8, seed=0
    ).train()
    noise = generator(3, "waves").standard_normal((8, 4000)).astype("float32")
    tones = torch.arange(4000) * torch.tensor([0.1, 0.4]).repeat(4)[:, None]
    wave = 0.1 * torch.sin(tones) + 0.01 * torch.from_numpy(noise)
    labels = torch.tensor([0, 1]).repeat(4)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(wave), labels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
