"""Options of the nested network: what each of them switches, and what a wrong one is told."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glottis.config import unread
from glottis.errors import ConfigError
from glottis.models import create_model
from glottis.models.nested import NestedSpeakerNet, resized
from glottis.rng import torch_generator

SMALL: dict[str, Any] = {"num_levels": 3, "embedding_size": 8, "features": {"num_mels": 16}}
NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm2d, nn.GroupNorm)
FEATURES = torch.randn(2, 16, 26, generator=torch_generator(4))


def network(name: str = "nested", **options: Any) -> NestedSpeakerNet:
    found = create_model(name, seed=0, **{**SMALL, **options}).network
    assert isinstance(found, NestedSpeakerNet)
    return found


def kinds(net: nn.Module, kind: type[nn.Module]) -> list[str]:
    return [name for name, module in net.named_modules() if isinstance(module, kind)]


def nested_numbers(net: NestedSpeakerNet) -> list[int]:
    return [i for i, level in enumerate(net.levels, start=1) if level.nested is not None]


def test_the_report_nests_all_levels_and_normalises_by_groups() -> None:
    net = network("nested_report004")
    assert nested_numbers(net) == [2, 3]
    assert not kinds(net, nn.BatchNorm2d)
    assert {net.get_submodule(name).num_groups for name in kinds(net, nn.GroupNorm)} == {8}
    assert all(net.get_submodule(name).p == 0.1 for name in kinds(net, nn.Dropout2d))
    assert float(net.statistics()["nested_raw_2"]) == pytest.approx(0.3)
    assert (net.alignment, net.fusion_alignment) == ("adaptive", "adaptive")


def test_before_the_report_the_gate_is_half_and_norms_are_of_batches() -> None:
    net = network("nested_original")
    assert nested_numbers(net) == [2, 3]
    assert not kinds(net, nn.GroupNorm)
    assert net.statistics() == {}
    assert (net.alignment, net.fusion_alignment) == ("bilinear", "bilinear")
    nested = net.levels[1].nested
    assert nested.constant == 0.5
    assert nested.dropout.p == 0.0


def test_the_published_code_keeps_batch_norms_in_four_places() -> None:
    net = network()
    assert nested_numbers(net) == [3]
    places = {
        kind: {re.sub(r"^levels\.\d\.", "", name) for name in kinds(net, kind)} for kind in NORMS
    }
    assert places[nn.BatchNorm2d] == {
        "stem_norm",
        "depthwise_norm",
        "shortcut.1",
        "fusion.norms.0",
    }
    assert places[nn.GroupNorm] == {"pointwise_norm", "nested.norm"}


@pytest.mark.parametrize(
    "fix",
    [
        {"gate": "sigmoid", "nested_weight": 0.3},
        {"alignment": "adaptive"},
        {"norm": "group"},
        {"nested_dropout": 0.1},
    ],
)
def test_each_fix_of_the_report_is_one_switch(fix: dict[str, Any]) -> None:
    before, after = network("nested_original"), network("nested_original", **fix)
    shared = {name: value for name, value in before.state_dict().items() if "norm" not in name}
    after.load_state_dict(shared, strict=False)
    torch.manual_seed(0)
    old = before.train()(FEATURES)
    new = after.train()(FEATURES)
    assert not torch.allclose(old, new, rtol=1e-3)


@pytest.mark.parametrize("levels", [[], [2], [3], [3, 2]])
def test_chosen_levels_are_nested_and_no_others(levels: list[int]) -> None:
    net = network(nested_levels=levels)
    assert nested_numbers(net) == sorted(levels)
    assert sorted(net.statistics()) == sorted(
        f"nested_{kind}_{level}" for level in levels for kind in ("raw", "gate")
    )


@pytest.mark.parametrize("options", [{"nested_levels": []}, {"fusion": "none"}, {"gate": "fixed"}])
def test_no_option_is_left_unread_when_a_part_is_off(options: dict[str, Any]) -> None:
    model = create_model("nested", seed=0, **{**SMALL, **options})
    assert unread(model.config) == []


@pytest.mark.parametrize("wrong", [[1], [4], [3, 3]])
def test_levels_that_cannot_be_nested_are_refused(wrong: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"choose from 2 to 3; \[\] for none"):
        network(nested_levels=wrong)


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="norm_groups=3 does not divide"):
        network(norm_groups=3)


def test_a_closed_gate_leaves_the_network_without_nesting() -> None:
    nested, plain = network(), network(nested_levels=[])
    state = nested.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    with torch.no_grad():
        nested.levels[2].nested.weight.fill_(-100.0)
    assert torch.allclose(nested.eval()(FEATURES), plain.eval()(FEATURES), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        nested.levels[2].nested.weight.fill_(0.3)
    assert not torch.allclose(nested(FEATURES), plain(FEATURES), rtol=1e-3)


def test_a_fixed_gate_equals_the_sigmoid_of_its_logit() -> None:
    share = 0.25
    learned = network(nested_weight=math.log(share / (1 - share))).eval()
    fixed = network(gate="fixed", nested_weight=share).eval()
    state = learned.state_dict()
    fixed.load_state_dict({name: state[name] for name in fixed.state_dict()})
    torch.testing.assert_close(learned(FEATURES), fixed(FEATURES))
    assert float(learned.statistics()["nested_gate_3"]) == pytest.approx(share)


def test_a_level_sees_every_earlier_one() -> None:
    net = network("nested_original", num_levels=5, nested_levels=[5], fusion="none").eval()
    seen: list[Tensor] = []
    net.levels[4].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    with torch.inference_mode():
        net(FEATURES)
    assert seen[0].shape == (2, 64 + 128 + 256 + 512, 2, 4)


def test_fusion_none_pools_the_last_level_alone() -> None:
    net = network(fusion="none").eval()
    maps: list[Tensor] = []
    net.levels[-1].register_forward_hook(lambda *call: maps.append(call[-1]))
    with torch.inference_mode():
        found = net(FEATURES)
        assert torch.equal(found, net.embedding(net.pooling(maps[0].mean(dim=2))))


def test_the_repaired_sum_hears_every_map_at_one_weight() -> None:
    # doubling a map changes nothing: each one is normalised on its own before the sum
    fusion = network(fusion="sum").fusion.train()
    maps = [torch.randn(4, width, 3, 5, generator=torch_generator(width)) for width in
            (32, 64, 128, 256)]  # fmt: skip
    plain = fusion(maps)
    louder = fusion([10.0 * maps[0], *maps[1:]])
    assert plain.shape == (4, 256, 3, 5)
    torch.testing.assert_close(plain, louder, rtol=1e-3, atol=1e-3)
    other = fusion([maps[0].flip(0), *maps[1:]])
    assert not torch.allclose(plain, other, atol=1e-2)


def test_halving_is_the_same_either_way() -> None:
    # so the choice of alignment acts on odd sizes and on maps that are two levels away
    x = torch.randn(1, 2, 8, 12, generator=torch_generator(5))
    half, quarter = torch.Size((4, 6)), torch.Size((2, 3))
    torch.testing.assert_close(resized(x, half, "adaptive"), resized(x, half, "bilinear"))
    assert not torch.allclose(resized(x, quarter, "adaptive"), resized(x, quarter, "bilinear"))


def test_resizing_keeps_what_has_the_size_and_a_constant() -> None:
    x = torch.full((1, 2, 9, 7), 3.0)
    for kind in ("adaptive", "bilinear"):
        assert resized(x, torch.Size((9, 7)), kind) is x
        torch.testing.assert_close(resized(x, torch.Size((4, 3)), kind), x[:, :, :4, :3])
