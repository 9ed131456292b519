"""What every registered loss promises; a new one is tested by being registered.

Shapes: B batch, P speakers, N utterances of each, D embedding, K classes.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glottis.config import require_all_read
from glottis.errors import ModelError
from glottis.losses import LOSSES, LossOutput, build_loss

D, K, P, N = 48, 12, 10, 3
every_loss = pytest.mark.parametrize("name", LOSSES.names())
# losses whose chance value is stated for embeddings of this length
LENGTH = {"prototypical": 1e-3}
# options that fit the sizes of these tests
OPTIONS: dict[str, dict[str, Any]] = {"matryoshka": {"dims": [D // 2, D]}}
HALF = [torch.float32, torch.bfloat16, torch.float16]


def build(name: str, size: int = D, classes: int = K) -> Any:
    task = LOSSES[name].target.task
    options = dict(OPTIONS.get(name, {}))
    if "dims" in options:
        options["dims"] = [size // 2, size]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_loss(LOSSES.config(name, **options), size, 2 if task == "spoof" else classes)


def batch(loss: Any, items: int = 20, classes: int = K, size: int = D) -> tuple[Tensor, Tensor]:
    """Random input and labels of the kind that the loss takes."""
    rng = torch.Generator().manual_seed(items)
    if loss.batch == "grouped":
        return torch.randn(P, N, size, generator=rng), torch.arange(P)
    classes = 2 if loss.task == "spoof" else classes
    width = size if loss.input == "embedding" else classes
    labels = torch.arange(items) % classes
    return torch.randn(items, width, generator=rng), labels


def class_vectors(loss: nn.Module, size: int = D) -> list[nn.Parameter]:
    """The matrices with one vector per class."""
    return [p for p in loss.parameters() if p.ndim == 2 and p.shape[1] == size]


@every_loss
def test_it_says_what_it_takes(name: str) -> None:
    target = LOSSES[name].target
    assert target.task in {"speaker", "spoof"}
    assert target.batch in {"flat", "grouped"}
    assert target.input in {"embedding", "logits"}
    reference = vars(target).get("reference", "")  # its own, not that of what it extends
    assert re.search(r", .*(19|20)\d\d", reference), "no `reference = 'Name et al., Venue year'`"
    text = (inspect.getdoc(target) or "") + (inspect.getmodule(target).__doc__ or "")
    assert re.search(r"\([BP], [\w, ]+\)", text), "the docstring needs shapes"
    assert re.search(r"(19|20)\d\d", text), "the docstring needs a source with its year"
    for field, info in LOSSES[name].config.__pydantic_fields__.items():
        assert info.description, f"{field} has no description"
    config = LOSSES.config(name, **OPTIONS.get(name, {}))
    build_loss(config, D, 2 if target.task == "spoof" else K)
    require_all_read(config)


@every_loss
def test_it_gives_a_scalar_and_detached_statistics(name: str) -> None:
    loss = build(name)
    x, labels = batch(loss)
    result = loss(x.requires_grad_(), labels)
    assert isinstance(result, LossOutput)
    assert result.loss.shape == ()
    assert result.loss.requires_grad
    for value in result.stats.values():
        assert value.shape == ()
        assert not value.requires_grad
    assert 0.0 <= float(result.stats["accuracy"]) <= 1.0


@every_loss
def test_gradient_reaches_input_and_parameters(name: str) -> None:
    loss = build(name)
    x, labels = batch(loss)
    loss(x.requires_grad_(), labels).loss.backward()
    assert x.grad is not None
    assert (x.grad != 0).any()
    for parameter_name, parameter in loss.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name


@every_loss
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_finite_at_cosine_one_and_minus_one(name: str, dtype: torch.dtype, sign: float) -> None:
    loss = build(name)
    x, labels = batch(loss, items=K)
    if loss.input == "logits":
        x = sign * 1e4 * torch.eye(2)[labels]
    elif loss.batch == "grouped":
        x = x[:, :1].repeat(1, N, 1)
        x[:, 0] *= sign
    if loss.batch == "flat":
        for vectors in class_vectors(loss):
            x = sign * vectors.detach()[labels] * 5.0
    # opposite utterances have a zero centroid in GE2E: the slope of its direction is beyond fp16
    steep = name == "ge2e" and sign < 0 and dtype == torch.float16
    for given in {torch.float32} if steep else {torch.float32, dtype}:
        loss.zero_grad()
        clips = x.detach().to(given).requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            result = loss(clips, labels)
        assert result.loss.dtype == torch.float32
        assert torch.isfinite(result.loss)
        result.loss.backward()
        assert clips.grad is not None
        assert torch.isfinite(clips.grad).all()
        assert all(torch.isfinite(p.grad).all() for p in loss.parameters())


@every_loss
@pytest.mark.parametrize("dtype", HALF[1:])
def test_autocast_changes_nothing(name: str, dtype: torch.dtype) -> None:
    loss = build(name)
    x, labels = batch(loss)
    plain = loss(x, labels).loss
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(loss(x, labels).loss, plain)
        half = loss(x.to(dtype), labels).loss
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, loss(x.to(dtype).float(), labels).loss)


@every_loss
def test_the_chance_value_matches_a_simulation(name: str) -> None:
    size, classes = 192, 400
    loss = build(name, size, classes)
    values = []
    for draw in range(60 if loss.batch == "grouped" else 8):
        x, labels = batch(loss, items=400 + draw, classes=classes, size=size)
        x = torch.zeros_like(x) if loss.input == "logits" else x * LENGTH.get(name, 1.0)
        values.append(float(loss(x, labels).loss.detach()))
    count = P if loss.batch == "grouped" else classes
    expected = loss.chance_loss(2 if loss.task == "spoof" else count)
    assert sum(values) / len(values) == pytest.approx(expected, rel=0.03)


@every_loss
def test_the_collapse_value_matches_a_collapsed_batch(name: str) -> None:
    loss = build(name)
    x, labels = batch(loss, items=K)
    count = {"grouped": P, "flat": K}[loss.batch]
    expected = loss.collapse_loss(2 if loss.task == "spoof" else count)
    if expected is None:
        pytest.skip("the collapse value depends on the data")
    direction = torch.randn(D)
    with torch.no_grad():
        for vectors in class_vectors(loss):
            vectors.copy_(direction.expand_as(vectors))
        for parameter_name, parameter in loss.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.zero_()
    value = float(loss(direction.expand_as(x), labels).loss.detach())
    assert value == pytest.approx(expected, rel=1e-3)


@every_loss
def test_weights_of_items_add_up(name: str) -> None:
    loss = build(name)
    x, labels = batch(loss)
    whole = loss(x, labels).loss
    torch.testing.assert_close(loss(x, labels, weights=torch.ones(len(x))).loss, whole)
    share = torch.rand(len(x), generator=torch.Generator().manual_seed(0))
    both = loss(x, labels, weights=share).loss + loss(x, labels, weights=1 - share).loss
    torch.testing.assert_close(both, whole)


@every_loss
def test_wrong_shapes_are_refused(name: str) -> None:
    loss = build(name)
    x, labels = batch(loss)
    for wrong, wrong_labels in ((x[..., :-1], labels), (x, labels[:-1]), (x[0], labels)):
        with pytest.raises(ModelError, match="the loss was given"):
            loss(wrong, wrong_labels)


@every_loss
def test_the_state_comes_back(name: str) -> None:
    first, second = build(name), build(name)
    x, labels = batch(first)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x, labels).loss, second(x, labels).loss)
