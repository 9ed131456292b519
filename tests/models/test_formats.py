"""Which published kind of checkpoint a file is: by its tensor names, or said by the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.errors import ModelError
from glottis.models import MODELS, import_with_report
from glottis.models._formats import Format, choose_format, formats_of, importers
from helpers.golden import filled_state

ONE = Format("one", str, marks=("stem.*",), prefixes=("module.",), extras=("loss.*",))
TWO = Format("two", str, marks=("stem.*",))
THREE = Format("three", str, marks=("blocks.0.*", "fc.weight"))
ALL = (ONE, TWO, THREE)
# registered name -> lists of its published tensors
LISTS = {
    "aasist": ["AASIST"],
    "aasist_l": ["AASIST-L"],
    "cam_plus_plus": ["importer_wespeaker_campplus_tstp512", "importer_3dspeaker_campplus_192"],
    "ecapa_1024": ["importer_wespeaker_ecapa1024_astp192", "importer_speechbrain_ecapa1024_192"],
    "ecapa_512": ["importer_wespeaker_ecapa512_astp192"],
    "ge2e": ["ge2e"],
    "lstm_autoencoder": ["dim_lstm_autoencoder"],
    "mlp_mixer": ["dim_mlp_mixer_default"],
    "mlp_mixer_raw": ["dim_mlp_mixer_raw"],
    "mlp_mixer_small": ["dim_mlp_mixer_cfg"],
    "nested": ["dim_nested_4level_sap", "dim_nested_5level_asp"],
    "rawnet3": ["vox_RawNet3_ECA"],
    "redimnet": ["redimnet_wrap_default"],
    "redimnet2_b0": ["redimnet2_b0_1d", "redimnet2_b0_2d", "redimnet2_b0_2d_dual_gnorm"],
    "redimnet_b0": ["redimnet_b0"],
    "redimnet_b1": ["redimnet_b1"],
    "redimnet_b2": ["redimnet_b2_official"],
    "redimnet_b2_mrl": ["mrl_redimnet_b2"],
    "redimnet_b3": ["redimnet_b3"],
    "redimnet_b4": ["redimnet_b4"],
    "redimnet_b5": ["redimnet_b5"],
    "redimnet_b6": ["redimnet_b6"],
    "resnet34_wespeaker": ["importer_wespeaker_resnet34_tstp256"],
    "resnetse34l": ["vox_ResNetSE34L_SAP", "vox_ResNetSE34L_ASP"],
    "resnetse34v2": ["vox_ResNetSE34V2_SAP", "vox_ResNetSE34V2_ASP"],
    "se_resnet": ["seresnet_conf_2222"],
    "se_resnet_deep": ["seresnet_default_3463"],
    "se_resnet_small": ["seresnet_small"],
    "vggvox": ["vox_VGGVox_SAP", "vox_VGGVox_TAP", "vox_VGGVox_MAX"],
}


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
    assert found.bare("module._orig_mod.__S__.fc.weight") == "fc.weight"
    assert formats_of(Format) == ()


def test_only_names_with_a_published_list_have_an_importer(shared: Path) -> None:
    """Every registered importer is compared with a list of the published tensors somewhere."""
    lists = {path.stem for path in (shared / "golden" / "state_dicts").glob("*.tsv")}
    assert {name for name in MODELS.names() if importers(name)} == set(LISTS)
    assert {entry for entries in LISTS.values() for entry in entries} <= lists


def test_a_config_stored_beside_the_tensors_overrules_the_shapes(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def config(content: Any, arch: str) -> Any:
        seen.append((content, arch))
        return {"pooling": "asp"}, {"num_mels": content["model_config"]["mels"]}

    target = MODELS["resnetse34l"].target
    state = filled_state(shared, "vox_ResNetSE34L_ASP", seed=2024)
    content = {"model_config": {"mels": 80}, "step": 7}
    torch.save({"state_dict": state, **content}, tmp_path / "weights.pt")
    monkeypatch.setattr(target, "original_config", staticmethod(config), raising=False)
    model, report = import_with_report("resnetse34l", tmp_path / "weights.pt")
    assert seen == [(content, "resnetse34l")]
    assert (model.config.pooling, model.features_config.num_mels) == ("asp", 80)
    assert model.embedding_size == 256  # still from the shapes
    assert report.loaded_share == 1.0
    model, _ = import_with_report("resnetse34l", tmp_path / "weights.pt", features={"num_mels": 72})
    assert model.features_config.num_mels == 72  # the user has the last word
