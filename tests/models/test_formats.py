"""Which published kind of checkpoint a file is: by its tensor names, or said by the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.errors import ModelError
from glottis.models import MODELS, create_model, import_with_report
from glottis.models._formats import Format, choose_format, formats_of

ONE = Format("one", str, marks=("stem.*",), prefixes=("module.",), extras=("loss.*",))
TWO = Format("two", str, marks=("stem.*",))
THREE = Format("three", str, marks=("blocks.0.*", "fc.weight"))
ALL = (ONE, TWO, THREE)


def chosen(names: list[str], wanted: str | None = None, formats: Any = ALL) -> str:
    return choose_format(formats, names, wanted).name


def test_the_names_in_a_file_tell_its_format() -> None:
    assert chosen(["blocks.0.weight", "fc.weight"]) == "three"
    assert chosen(["whatever"], formats=(TWO,)) == "two"  # the only one: its import says what fits


def test_every_mark_is_needed() -> None:
    with pytest.raises(ModelError, match="no known format") as caught:
        chosen(["blocks.0.weight"])
    assert r"three has blocks.0.* and fc.weight" in str(caught.value)


def test_a_head_that_one_format_has_tells_names_apart() -> None:
    assert chosen(["module.stem.weight", "module.loss.weight"]) == "one"


def test_names_that_tell_nothing_are_asked_about() -> None:
    with pytest.raises(ModelError, match="same names in the formats one and two") as caught:
        chosen(["stem.weight"])
    assert "--format one" in str(caught.value)
    assert chosen(["stem.weight"], "two") == "two"


def test_an_unknown_format_is_refused_with_those_there_are() -> None:
    with pytest.raises(ModelError, match="there is no format 'four'") as caught:
        chosen(["stem.weight"], "four")
    assert "known: one, two, three" in str(caught.value)


def test_a_network_with_one_kind_needs_no_list() -> None:
    (found,) = formats_of(MODELS["resnetse34l"].target)
    assert found.original_name("embedding.weight") == "fc.weight"
    assert found.bare("__S__.fc.weight") == "fc.weight"
    assert formats_of(Format) == ()


def test_a_config_stored_beside_the_tensors_overrules_the_shapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def config(content: Any, arch: str) -> Any:
        seen.append((content, arch))
        return {"pooling": "asp"}, {"num_mels": content["model_config"]["mels"]}

    target = MODELS["resnetse34l"].target
    network = create_model("resnetse34l", pooling="asp", embedding_size=8, seed=0).network
    state = {network.original_name(name): value for name, value in network.state_dict().items()}
    state["torchfb.mel_scale.fb"] = torch.zeros(257, 40)
    content = {"model_config": {"mels": 64}, "step": 7}
    torch.save({"state_dict": state, **content}, tmp_path / "weights.pt")
    monkeypatch.setattr(target, "original_config", staticmethod(config), raising=False)
    model, report = import_with_report("resnetse34l", tmp_path / "weights.pt")
    assert seen == [(content, "resnetse34l")]
    assert (model.config.pooling, model.features_config.num_mels) == ("asp", 64)
    assert model.embedding_size == 8  # still from the shapes
    assert report.loaded_share == 1.0
    model, _ = import_with_report("resnetse34l", tmp_path / "weights.pt", features={"num_mels": 80})
    assert model.features_config.num_mels == 80  # the user has the last word
