"""Heads over many or few classes: sampling, sub-centres, binary classifiers, smoothing, focus."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from glottis.errors import ConfigError
from glottis.losses import LOSSES, build_loss
from glottis.losses._common import class_losses, cosines

D, K, B = 24, 30, 10


def items(classes: int = K) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(B, D, generator=rng)
    labels = torch.randint(classes, (B,), generator=rng)
    labels[1] = labels[0]  # the same class twice in a batch
    return x, labels


def build(name: str, classes: int = K, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_loss(LOSSES.config(name, **options), D, classes)


def test_sampling_every_class_is_aam_softmax() -> None:
    whole, sampled = build("aam_softmax"), build("sampled_aam", share=1.0)
    sampled.centres.data.copy_(whole.centres)
    x, labels = items()
    first, second = whole(x, labels), sampled(x, labels)
    torch.testing.assert_close(first.loss, second.loss)
    assert torch.equal(first.stats["accuracy"], second.stats["accuracy"])
    first.loss.backward()
    second.loss.backward()
    torch.testing.assert_close(whole.centres.grad, sampled.centres.grad)


def test_every_class_has_its_turn_and_only_the_sample_gets_a_gradient() -> None:
    loss = build("sampled_aam", share=0.1, least=5)
    x, labels = items()
    seen = torch.zeros(K, dtype=torch.bool)
    for _ in range(K // 5):
        loss.zero_grad()
        loss(x, labels).loss.backward()
        touched = (loss.centres.grad != 0).any(dim=1)
        assert int(touched.sum()) <= 5 + len(labels.unique())
        assert touched[labels].all()
        seen |= touched
    assert seen.all()


def test_every_class_has_its_turn_at_every_size_of_a_matryoshka_loss() -> None:
    sampled = {"name": "sampled_aam", "share": 0.1, "least": K // 2}
    loss = build("matryoshka", dims=(D // 2, D), weights=(1.0, 0.0), loss=sampled)
    x, labels = items()
    seen = torch.zeros(K, dtype=torch.bool)
    for _ in range(2):
        loss.zero_grad()
        loss(x, labels).loss.backward()
        seen |= (loss.heads[str(D)].centres.grad != 0).any(dim=1)
    assert seen.all()
    assert int(loss.heads[str(D)].turn) == 2


def test_the_turn_is_part_of_the_state() -> None:
    first, second = build("sampled_aam", least=5), build("sampled_aam", least=5)
    x, labels = items()
    first(x, labels)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x, labels).loss, second(x, labels).loss)


def test_one_centre_without_penalty_is_aam_softmax() -> None:
    plain, sub = build("aam_softmax"), build("sub_centre_aam", centres=1, top_k=0)
    sub.centres.data.copy_(plain.centres)
    x, labels = items()
    torch.testing.assert_close(plain(x, labels).loss, sub(x, labels).loss)


def test_the_penalty_turns_the_hardest_classes_by_its_angle() -> None:
    loss = build("sub_centre_aam", centres=2, top_k=3, top_k_margin=0.1, margin=0.0, scale=1.0)
    x, labels = items()
    cosine = cosines(x, loss.centres).unflatten(1, (K, 2)).amax(2)
    logits = loss.logits(cosine, labels)
    changed = (logits - cosine).abs() > 1e-6
    others = cosine.scatter(1, labels[:, None], -2.0)
    expected = torch.zeros_like(changed).scatter(1, others.topk(3).indices, True)
    assert torch.equal(changed, expected)
    angles = torch.acos(cosine[changed]) - torch.acos(logits[changed])
    torch.testing.assert_close(angles, torch.full_like(angles, 0.1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["C", "A"])
def test_sphereface2_is_a_sum_of_binary_classifiers(kind: str) -> None:
    loss = build("sphereface2", margin=0.15, margin_type=kind, initial_bias=1.5)
    x, labels = items()
    cosine = cosines(x.double(), loss.centres.double())
    total = 0.0
    for row, label in zip(cosine.tolist(), labels.tolist(), strict=True):
        for k, c in enumerate(row):
            sign = -1 if k == label else 1
            if kind == "A":
                c = math.cos(min(max(math.acos(c) - sign * 0.15, 0.0), math.pi))
            g = 2 * ((c + 1) / 2) ** 3 - 1 + (sign * 0.15 if kind == "C" else 0.0)
            weight = 0.7 if k == label else 0.3
            total += weight / 32 * math.log1p(math.exp(sign * (32 * g + 1.5)))
    assert float(loss(x, labels).loss.detach()) == pytest.approx(total / B, rel=1e-4)


def test_smoothing_and_focus_are_what_they_say() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(B, K, generator=rng), torch.arange(B)
    log_p = logits.log_softmax(1)
    own = log_p.gather(1, labels[:, None])[:, 0]
    smoothed = -(0.9 * own + 0.1 * log_p.mean(1))
    torch.testing.assert_close(class_losses(logits, labels, smoothing=0.1), smoothed)
    focal = class_losses(logits, labels, smoothing=0.1, gamma=2.0)
    torch.testing.assert_close(focal, (1 - own.exp()) ** 2 * smoothed)


@pytest.mark.parametrize("name", ["am_softmax", "aam_softmax", "softmax", "sub_centre_aam"])
def test_chance_and_collapse_hold_with_smoothing_and_focus(name: str) -> None:
    size, classes = 192, 400
    config = LOSSES.config(name, label_smoothing=0.2, focal_gamma=1.0)
    loss = build_loss(config, size, classes)
    rng = torch.Generator().manual_seed(1)
    length = 0.1 if name == "softmax" else 1.0  # long embeddings give a classifier an opinion
    x, labels = length * torch.randn(classes, size, generator=rng), torch.arange(classes)
    value = float(loss(x, labels).loss.detach())
    assert value == pytest.approx(loss.chance_loss(classes), rel=0.03)


def test_matryoshka_per_size_has_class_vectors_of_every_size() -> None:
    inner = {"name": "aam_softmax", "margin": 0.1}
    loss = build("matryoshka", dims=[8, 24], shared=False, loss=inner)
    assert [tuple(p.shape) for p in loss.parameters()] == [(K, 8), (K, 24)]
    x, labels = items()
    expected = (loss.heads["8"](x[:, :8], labels).loss + loss.heads["24"](x, labels).loss) / 2
    torch.testing.assert_close(loss(x, labels).loss, expected)


def test_matryoshka_shares_one_set_of_class_vectors_and_works_over_metric_losses() -> None:
    shared = build("matryoshka", dims=[8, 24])
    assert [tuple(p.shape) for p in shared.parameters()] == [(K, 24)]
    metric = build("matryoshka", dims=[8, 24], loss={"name": "angular_prototypical"})
    assert metric.batch == "grouped"
    groups = torch.randn(5, 2, D, generator=torch.Generator().manual_seed(0))
    one = build("angular_prototypical")
    labels = torch.arange(5)
    small = build_loss(LOSSES.config("angular_prototypical"), 8, K)
    expected = (one(groups, labels).loss + small(groups[..., :8], labels).loss) / 2
    torch.testing.assert_close(metric(groups, labels).loss, expected)


def test_matryoshka_refuses_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="embedding has 24"):
        build("matryoshka", dims=[8, 16])
    with pytest.raises(ConfigError, match="grow"):
        build("matryoshka", dims=[16, 8])
    with pytest.raises(ConfigError, match="spoofing"):
        build("matryoshka", classes=2, dims=[8, 24], loss={"name": "focal"})


def test_semi_hard_mining_falls_back_to_the_nearest() -> None:
    hard, semi = build("triplet", mining="hard"), build("triplet", mining="semi_hard", margin=1e-6)
    hard.margin = semi.margin
    groups = functional.normalize(torch.randn(4, 2, D), dim=-1)
    labels = torch.arange(4)
    torch.testing.assert_close(semi(groups, labels).loss, hard(groups, labels).loss)


def test_the_chance_value_of_a_sharp_one_class_softmax_is_finite() -> None:
    """softplus(900) and softplus(-200), whose exponentials do not fit."""
    loss = build_loss(LOSSES.config("oc_softmax", scale=1000.0), D, 2)
    assert loss.chance_loss(2) == pytest.approx(450.0)
