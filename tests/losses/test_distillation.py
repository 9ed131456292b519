"""Distillation: closed forms, invariances, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from glottis.errors import ModelError
from glottis.losses.distillation import (
    cosine_distillation,
    kl_distillation,
    relational_distillation,
)

B, D = 6, 16


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(B, D, generator=rng), torch.randn(B, D, generator=rng)


@pytest.mark.parametrize(
    "distance", [cosine_distillation, kl_distillation, relational_distillation]
)
def test_a_perfect_student_pays_nothing_and_the_teacher_gets_no_gradient(distance) -> None:
    student, teacher = pair()
    same = distance(teacher.clone(), teacher)
    torch.testing.assert_close(same, torch.zeros(B), atol=1e-5, rtol=0)
    student.requires_grad_()
    teacher.requires_grad_()
    value = distance(student, teacher)
    assert value.shape == (B,)
    assert (value > 0).all()
    value.sum().backward()
    assert teacher.grad is None
    assert torch.isfinite(student.grad).all()
    assert (student.grad != 0).any()


def test_cosine_is_half_the_squared_distance_of_unit_vectors() -> None:
    student, teacher = pair()
    squared = functional.normalize(student) - functional.normalize(teacher)
    expected = squared.square().sum(1) / 2
    torch.testing.assert_close(cosine_distillation(student, teacher), expected)


def test_kl_is_the_textbook_sum() -> None:
    student, teacher = pair()
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    expected = 9 * (p * (p / q).log()).sum(1)
    torch.testing.assert_close(kl_distillation(student, teacher, 3.0), expected)


def test_relations_do_not_depend_on_size_or_scale_of_the_embeddings() -> None:
    _, teacher = pair()
    wide = torch.cat([5 * teacher, torch.zeros(B, D)], dim=1)
    result = relational_distillation(wide, teacher)
    torch.testing.assert_close(result, torch.zeros(B), atol=1e-6, rtol=0)


def test_other_sizes_are_refused_with_the_way_out() -> None:
    student, teacher = pair()
    with pytest.raises(ModelError, match="relational"):
        cosine_distillation(student[:, :8], teacher)
    with pytest.raises(ModelError, match="pairs"):
        relational_distillation(student[:1], teacher[:1])
