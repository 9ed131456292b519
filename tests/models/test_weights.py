"""Loading weights: every tensor accounted for, nothing left random in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from glottis.errors import ModelError
from glottis.models import import_with_report, load_weights, read_state
from helpers.golden import filled_state, read, save_state


def pair() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def test_a_full_load_says_so() -> None:
    model, other = pair(), pair()
    report = load_weights(model, other.state_dict())
    assert report.loaded_share == 1.0
    assert report.matched_mass == 3 * 4 + 4 + 4 * 2 + 2
    assert report.missing == report.mismatched == report.unexpected == ()
    assert torch.equal(model[1].weight, other[1].weight)
    assert str(report).splitlines() == [
        "loaded 26 of 26 values (100.00 %) in 4 tensors",
        "missing: none",
        "mismatched: none",
        "unexpected: none",
    ]


def test_a_missing_tensor_is_an_error_that_names_it() -> None:
    state = pair().state_dict()
    del state["1.weight"]
    model = pair()
    before = model[0].weight.clone()
    with pytest.raises(ModelError, match=r"missing: 1\.weight 2x4"):
        load_weights(model, state)
    assert torch.equal(model[0].weight, before)  # nothing was changed


def test_a_declared_new_head_may_be_missing_or_of_another_shape() -> None:
    state = pair().state_dict()
    state["1.weight"] = torch.zeros(7, 4)
    state["1.extra"] = torch.zeros(3)
    del state["1.bias"]
    model = pair()
    head = model[1].weight.clone()
    report = load_weights(model, state, new=("1.*",))
    assert report.mismatched == ("1.weight",)
    assert report.missing == ("1.bias",)
    assert report.unexpected == ("1.extra",)
    assert (report.matched_mass, report.missing_mass, report.mismatched_mass) == (16, 2, 8)
    assert torch.equal(model[1].weight, head)
    assert torch.equal(model[0].weight, state["0.weight"])
    assert "missing: 1 tensors, 2 values: 1.bias" in str(report)


def test_all_problems_are_listed_at_once() -> None:
    state = pair().state_dict()
    del state["0.bias"]
    state["1.weight"] = torch.zeros(5, 4)
    state["stranger"] = torch.zeros(2)
    state["1.bias"] = torch.tensor([0.0, float("nan")])
    with pytest.raises(ModelError) as caught:
        load_weights(pair(), state)
    text = str(caught.value)
    assert "4 tensors do not fit" in text
    for line in (
        "missing: 0.bias 4",
        "other shape: 1.weight is 2x4 here and 5x4 in the file",
        "left over: stranger 2",
        "not finite: 1.bias",
    ):
        assert line in text


def test_an_old_head_in_the_file_must_be_named() -> None:
    state = {**pair().state_dict(), "old.weight": torch.zeros(2)}
    with pytest.raises(ModelError, match=r"left over: old\.weight"):
        load_weights(pair(), state)
    assert load_weights(pair(), state, ignore=("old.*",)).unexpected == ("old.weight",)


PUBLISHED = {"aasist_l": "AASIST-L_weights", "resnetse34l": "vox_ResNetSE34L_SAP_weights"}


@pytest.mark.parametrize("arch", PUBLISHED)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_original_names_load_from_both_kinds_of_file(
    shared: Path, tmp_path: Path, arch: str, suffix: str
) -> None:
    state = read(shared, PUBLISHED[arch])
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_state(state, path)
    model, report = import_with_report(arch, path)
    assert report.loaded_share == 1.0
    for name, value in model.network.state_dict().items():
        published = state[model.network.original_name(name)]
        assert torch.equal(value.flatten(), published.flatten())


def test_import_does_not_touch_the_global_generator(shared: Path) -> None:
    before = torch.get_rng_state()
    import_with_report("aasist_l", shared / "golden" / "AASIST-L_weights.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_speaks_of_the_names_in_the_file(shared: Path, tmp_path: Path) -> None:
    state = read(shared, "AASIST-L_weights")
    del state["encoder.3.0.bn2.weight"]
    state["encoder.4.0.conv1.weight"] = torch.zeros(24, 24, 2, 5)
    with pytest.raises(ModelError) as caught:
        import_with_report("aasist_l", save_state(state, tmp_path / "w.safetensors"))
    text = str(caught.value)
    assert "w.safetensors as aasist_l: 2 tensors do not fit" in text
    assert "missing: encoder.3.0.bn2.weight 24" in text
    assert "encoder.4.0.conv1.weight is 24x24x2x3 here and 24x24x2x5 in the file" in text


def test_options_follow_from_the_shapes_in_the_file(shared: Path, tmp_path: Path) -> None:
    state = filled_state(shared, "vox_ResNetSE34L_ASP", seed=2024)
    state["fc.weight"], state["fc.bias"] = state["fc.weight"][:24], state["fc.bias"][:24]
    found, report = import_with_report("resnetse34l", save_state(state, tmp_path / "w.safetensors"))
    assert found.embedding_size == 24
    assert found.config.pooling == "asp"
    assert found.features_config.num_mels == 64
    assert all(name.startswith("torchfb.") for name in report.unexpected)


class Stranger:
    """Something that a checkpoint should not contain."""


def test_a_file_that_needs_unpickling_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "strange.pth"
    torch.save({"model": Stranger()}, path)
    with pytest.raises(ModelError, match=r"would import .*Stranger") as caught:
        read_state(path)
    assert "nothing of it was run" in str(caught.value)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="holds no named tensors"):
        read_state(path)


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no file .*absent\.pth"):
        read_state(tmp_path / "absent.pth")
    path = tmp_path / "half.safetensors"
    path.write_bytes(
        save_state({"a": torch.zeros(100)}, tmp_path / "x.safetensors").read_bytes()[:90]
    )
    with pytest.raises(ModelError, match=r"half\.safetensors cannot be read"):
        read_state(path)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state", "model_state_dict"])
def test_weights_inside_a_training_file_are_found(tmp_path: Path, key: str) -> None:
    torch.save({key: {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "t.pth")
    assert read_state(tmp_path / "t.pth").keys() == {"a"}


def test_weights_two_levels_deep_are_found(tmp_path: Path) -> None:
    torch.save({"model": {"state_dict": {"a": torch.ones(2)}, "step": 3}}, tmp_path / "t.pth")
    assert read_state(tmp_path / "t.pth").keys() == {"a"}
