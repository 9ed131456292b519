"""Optimisers: equal to torch's textbook ones, masked on the device, complete."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from glottis.config import build
from glottis.errors import ConfigError, ModelError
from glottis.train.optim import AdamConfig, AdamWConfig, Optimiser, SgdConfig, parameter_groups
from glottis.train.parts import named
from glottis.train.schedule import ConstantConfig, Schedule

CPU = torch.device("cpu")
CONFIGS: dict[str, Any] = {
    "adam": AdamConfig(rate=1e-2, weight_decay=1e-2),
    "adamw": AdamWConfig(rate=1e-2, weight_decay=1e-2),
    "sgd": SgdConfig(rate=1e-2, weight_decay=1e-2, momentum=0.9),
}


def network() -> nn.Sequential:
    generator = torch.Generator().manual_seed(3)
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(24, 3))
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return net


def textbook(name: str, parameters: Any) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(
            parameters, lr=1e-2, momentum=0.9, nesterov=True, weight_decay=1e-2, foreach=False
        )
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return kind(parameters, lr=1e-2, weight_decay=1e-2, foreach=False, fused=False)


def make(name: str, net: nn.Module, head: nn.Module | None = None) -> Optimiser:
    schedule = Schedule(ConstantConfig(), 100, 10)
    return Optimiser(CONFIGS[name], net, head or nn.Identity(), schedule, CPU)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_our_optimiser_equals_torchs_for_ten_steps(name: str, channels_last: bool) -> None:
    net = network()
    if channels_last:
        net = nn.Sequential(nn.Unflatten(1, (2, 1)), nn.Conv2d(2, 4, (1, 3)), nn.Flatten())
        net = net.to(memory_format=torch.channels_last)
    other = copy.deepcopy(net)
    ours, theirs = make(name, net), textbook(name, other.parameters())
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            q.grad = torch.randn(p.shape, generator=generator)
            p.grad = q.grad.clone()
        ours.step(torch.tensor(True))
        theirs.step()
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("bad_steps", [(0,), (3, 4)])
def test_a_masked_step_changes_nothing_and_leaves_no_trace(
    name: str, bad_steps: tuple[int, ...]
) -> None:
    net = network()
    other = copy.deepcopy(net)
    ours, clean = make(name, net), make(name, other)
    generator = torch.Generator().manual_seed(1)
    for i in range(8):
        gradients = [torch.randn(p.shape, generator=generator) for p in net.parameters()]
        before = [p.clone() for p in net.parameters()]
        for p, g in zip(net.parameters(), gradients, strict=True):
            p.grad = g.clone() if i not in bad_steps else torch.full_like(g, float("nan"))
        ours.step(torch.tensor(i not in bad_steps))
        if i in bad_steps:
            assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
            continue
        for p, g in zip(other.parameters(), gradients, strict=True):
            p.grad = g.clone()
        clean.step(torch.tensor(True))
    assert ours.applied.item() == 8 - len(bad_steps)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_rate_follows_applied_steps_only() -> None:
    net = network()
    schedule = Schedule(ConstantConfig(warmup_steps=4), 100, 10)
    ours = Optimiser(CONFIGS["adam"], net, nn.Identity(), schedule, CPU)
    for finite in (True, False, False, True):
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        ours.step(torch.tensor(finite))
    assert ours.rate().item() == pytest.approx(1e-2 * 3 / 4)  # two applied: the third step is next


@pytest.mark.parametrize("name", CONFIGS)
def test_the_state_restores_bit_for_bit(name: str, tmp_path: Any) -> None:
    net = network()
    ours = make(name, net)
    generator = torch.Generator().manual_seed(1)

    def advance(target: nn.Module, optimiser: Optimiser, generator: torch.Generator) -> None:
        for _ in range(3):
            for p in target.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            optimiser.step(torch.tensor(True))

    advance(net, ours, generator)
    torch.save(ours.state_dict(), tmp_path / "s.pt")
    other = copy.deepcopy(net)
    fresh = make(name, other)
    fresh.load_state_dict(torch.load(tmp_path / "s.pt", weights_only=True))
    again = torch.Generator()
    again.set_state(generator.get_state())
    advance(net, ours, generator)
    advance(other, fresh, again)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_moments_survive_a_change_of_memory_layout(tmp_path: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 2))
    ours = make("adam", net)
    gradient = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))

    def advance(target: nn.Sequential, optimiser: Optimiser) -> None:
        target[0].weight.grad, target[0].bias.grad = gradient.clone(), torch.ones(4)
        optimiser.step(torch.tensor(True))

    advance(net, ours)
    state = copy.deepcopy(ours.state_dict())
    other = copy.deepcopy(net).to(memory_format=torch.channels_last)
    fresh = make("adam", other)
    fresh.load_state_dict(state)
    advance(net, ours)
    advance(other, fresh)
    torch.testing.assert_close(net[0].weight, other[0].weight.contiguous(), rtol=1e-6, atol=1e-8)


def groups(net: nn.Module, head: nn.Module, **changes: Any) -> list[dict[str, Any]]:
    options = {"weight_decay": 0.1, "decay_all": True}
    factors = dict.fromkeys((name for name, _ in named(net, head)), 1.0)
    return parameter_groups(net, head, factors=factors, **(options | changes))


def test_every_trainable_parameter_is_in_exactly_one_group_the_heads_too() -> None:
    net, head = network(), nn.Linear(3, 5)
    net[0].bias.requires_grad_(False)
    found = [id(p) for g in groups(net, head, decay_all=False) for p in g["params"]]
    wanted = [id(p) for m in (net, head) for p in m.parameters() if p.requires_grad]
    assert sorted(found) == sorted(wanted)


def test_norms_and_biases_are_spared_when_asked() -> None:
    for group in groups(network(), nn.Linear(3, 5), decay_all=False):
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)


def test_the_head_can_have_its_own_rate() -> None:
    net, head = network(), nn.Linear(3, 5)
    config = build(AdamConfig, {"rate": 1e-2, "head_rate_factor": 10.0})
    optimiser = Optimiser(config, net, head, Schedule(ConstantConfig(), 10, 5), CPU)
    rates = {id(p): g["lr"].item() for g in optimiser.inner.param_groups for p in g["params"]}
    assert rates[id(head.weight)] == pytest.approx(0.1)
    assert rates[id(net[0].weight)] == pytest.approx(0.01)


def rates(net: nn.Module, head: nn.Module, **options: Any) -> dict[str, float]:
    """Rate over the peak, by the name of the parameter."""
    config = build(AdamConfig, {"rate": 1.0, **options})
    optimiser = Optimiser(config, net, head, Schedule(ConstantConfig(), 10, 5), CPU)
    names = {id(p): name for name, p in named(net, head)}
    return {names[id(p)]: float(g["lr"]) for g in optimiser.inner.param_groups for p in g["params"]}


def test_parts_have_rates_of_their_own_and_the_first_pattern_counts() -> None:
    net, head = nn.ModuleDict({"network": network()}), nn.Linear(3, 5)
    found = rates(net, head, part_rates={"network.0.bias": 0.5, "network.0": 0.1, "head.*": 2.0})
    assert found["network.0.bias"] == pytest.approx(0.5)
    assert found["network.0.weight"] == pytest.approx(0.1)
    assert found["network.3.weight"] == 1.0
    assert found["head.weight"] == 2.0
    with pytest.raises(ConfigError, match=r"no parameter is called 'network.9'[^$]*network.0"):
        rates(net, head, part_rates={"network.9": 0.5})


def test_earlier_blocks_learn_more_slowly() -> None:
    net, head = nn.ModuleDict({"network": network()}), nn.Linear(3, 5)
    found = rates(net, head, layer_decay=0.5)
    assert found["network.0.weight"] == found["network.0.bias"] == 0.25
    assert found["network.1.weight"] == 0.5
    assert found["network.3.weight"] == found["head.weight"] == 1.0


def test_moments_of_surviving_parameters_are_kept() -> None:
    net, head = network(), nn.Linear(3, 5)
    first = make("adam", net, head)
    for parameter in (*net.parameters(), *head.parameters()):
        parameter.grad = torch.ones_like(parameter)
    first.step(torch.tensor(True))
    net[3].requires_grad_(False)
    second = make("adam", net, head)
    second.adopt(first)
    assert second.inner.state[net[0].weight]["exp_avg"].abs().sum() > 0
    assert net[3].weight not in second.inner.state
    other = make("sgd", net, head)
    other.adopt(first)
    assert set(other.inner.state[net[0].weight]) == {"momentum_buffer"}


def test_a_shared_parameter_and_nothing_to_train_are_errors() -> None:
    net = network()
    with pytest.raises(ModelError, match="is also"):
        groups(net, net[0])
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing is trainable"):
        groups(net, nn.Identity())
