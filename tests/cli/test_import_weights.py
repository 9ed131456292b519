"""``glottis import-weights`` on files as they are published, and on files that are something else.

Names, order and shapes of the tensors are those of the published networks (golden/state_dicts); no
file here was written by a model of ours.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from torch import Tensor

from glottis.models import create_model, load_model
from glottis.models.parts.learned_sinc import LearnedSinc
from helpers import golden
from helpers.cli import files_below, glottis, succeeds

State = dict[str, Tensor]


def plain(state: State) -> Any:
    return state


def in_a_training_file(state: State) -> Any:
    return {"model": state, "optimizer": {"lr": 0.1, "state": {0: torch.ones(3)}}, "epoch": 7}


def of_several_devices(state: State) -> Any:
    return {"state_dict": {f"module.{name}": value for name, value in state.items()}}


def of_the_public_trainer(state: State) -> Any:
    head = {"__L__.weight": torch.ones(5994, 8), "__L__.bias": torch.zeros(5994)}
    return {**{f"__S__.{name}": value for name, value in state.items()}, **head}


def with_a_classifier(state: State) -> Any:
    return {**state, "projection.weight": torch.ones(17_982, 8)}


def of_resemblyzer(state: State) -> Any:
    return {"step": 1_564_501, "model_state": state, "optimizer_state": {}}


@dataclass(frozen=True)
class Case:
    """arch, tensors and vectors of one published file.

    list: in golden/state_dicts, filled with ``seed``; or golden/<list>_weights, if seed is None.
    vectors: file and name of the output.  form: how the file holds the tensors.
    """

    arch: str
    list: str
    seed: int | None
    vectors: tuple[str, str]
    form: Callable[[State], Any] = plain
    words: tuple[str, ...] = ()
    unexpected: int = 0
    slow: bool = False

    def state(self, shared: Path) -> State:
        if self.seed is None:
            return golden.read(shared, f"{self.list}_weights")
        state = golden.filled_state(shared, self.list, self.seed)
        if self.arch == "rawnet3":  # the vectors have these at their initial values
            start = LearnedSinc(128, sine=True)
            state["conv1.filterbank.low_hz_"] = start.low_hz.detach()[:, None]
            state["conv1.filterbank.band_hz_"] = start.band_hz.detach()[:, None]
        return state


VOX, REDIM, FEATURES = "vox_models_io", "redimnet_io", "importers_io"
CASES = [
    Case("aasist", "AASIST", None, ("AASIST_io", "eval.last_hidden"), slow=True),
    Case("aasist_l", "AASIST-L", None, ("AASIST-L_io", "eval.last_hidden"), of_several_devices),
    Case("ge2e", "ge2e", None, ("ge2e_io", "w0.embed"), of_resemblyzer, unexpected=2),
    Case("redimnet_b0", "redimnet_b0", None, (REDIM, "b0.eval.emb"), unexpected=3, slow=True),
    Case(
        *("redimnet_b2", "redimnet_b2_official", None, (REDIM, "b2_official.eval.emb")),
        form=of_several_devices,
        unexpected=3,
        slow=True,
    ),
    Case(
        *("resnetse34l", "vox_ResNetSE34L_SAP", None, (VOX, "ResNetSE34L_SAP.eval.emb")),
        form=of_the_public_trainer,
        unexpected=4,
    ),
    Case(
        *("resnetse34v2", "vox_ResNetSE34V2_ASP", 2024, (VOX, "ResNetSE34V2_ASP.eval.emb")),
        form=of_the_public_trainer,
        unexpected=5,
        slow=True,
    ),
    Case(
        *("rawnet3", "vox_RawNet3_ECA", 2024, (VOX, "RawNet3_ECA.eval.emb")),
        form=in_a_training_file,
        unexpected=3,
        slow=True,
    ),
    Case(
        *("vggvox", "vox_VGGVox_MAX", 2024, (VOX, "VGGVox_MAX.eval.emb")),
        form=in_a_training_file,
        words=("pooling=max", "features.log=none"),
        unexpected=2,
    ),
    Case(
        *("resnet34_wespeaker", "importer_wespeaker_resnet34_tstp256", 5),
        vectors=(FEATURES, "wespeaker_resnet34_tstp256"),
        form=with_a_classifier,
        unexpected=1,
        slow=True,
    ),
    Case(
        *("ecapa_512", "importer_wespeaker_ecapa512_glob_astp192", 5),
        vectors=(FEATURES, "wespeaker_ecapa512_glob_astp192"),
        form=in_a_training_file,
    ),
    Case(
        *("ecapa_1024", "importer_wespeaker_ecapa1024_astp192", 5),
        vectors=(FEATURES, "wespeaker_ecapa1024_astp192"),
        form=with_a_classifier,
        unexpected=1,
        slow=True,
    ),
    Case(
        *("ecapa_1024", "importer_speechbrain_ecapa1024_192", 5),
        vectors=(FEATURES, "speechbrain_ecapa1024_192"),
        form=of_several_devices,
        slow=True,
    ),
    Case(
        *("cam_plus_plus", "importer_wespeaker_campplus_tstp512", 5),
        vectors=(FEATURES, "wespeaker_campplus_tstp512"),
        form=with_a_classifier,
        unexpected=1,
        slow=True,
    ),
    Case(
        *("cam_plus_plus", "importer_3dspeaker_campplus_192", 5),
        vectors=(FEATURES, "3dspeaker_campplus_192"),
        words=("--format", "3dspeaker"),
    ),
]
EVERY = [
    pytest.param(case, marks=pytest.mark.slow if case.slow else (), id=f"{case.arch}-{case.list}")
    for case in CASES
]


def error_of(folder: Path, shared: Path, vectors: tuple[str, str]) -> float:
    """Largest relative error of the embeddings of a saved model."""
    file, name = vectors
    model = load_model(folder)
    if file == FEATURES:
        return golden.importer_error(model, shared, name)
    tensors = golden.read(shared, file)
    wave, reference = tensors.get("input.wave"), tensors[name]
    if wave is None:
        wave, reference = tensors[name.replace("embed", "wave")][None], reference[None]
    with torch.inference_mode():
        output = model(wave)
    return golden.relative_error(getattr(output, "embedding", output), reference)


@pytest.mark.parametrize("case", EVERY)
def test_a_published_file_gives_the_published_embeddings(case, shared, tmp_path) -> None:
    file, folder = tmp_path / "published.pth", tmp_path / "ours"
    torch.save(case.form(case.state(shared)), file)
    done = succeeds("import-weights", case.arch, file, folder, *case.words, "--json").json
    assert (done["loaded_share"], done["missing"], done["mismatched"]) == (1.0, [], [])
    assert len(done["unexpected"]) == case.unexpected, done["unexpected"]
    assert error_of(folder, shared, case.vectors) < golden.OUTPUT


def test_the_account_of_an_import_is_printed(shared, tmp_path) -> None:
    file = shared / "golden" / "ge2e_weights.safetensors"
    lines = succeeds("import-weights", "ge2e", file, tmp_path / "ours").out.splitlines()
    assert lines == [
        "loaded 1,423,616 of 1,423,616 values (100.00 %) in 14 tensors",
        "missing: none",
        "mismatched: none",
        "unexpected: 2 tensors, 2 values: similarity_bias, similarity_weight",
        f"saved to {tmp_path / 'ours'}",
    ]


def test_a_released_redimnet_says_what_it_is(shared, tmp_path) -> None:
    source = shared / "golden" / "redimnet_b2_official_weights.safetensors"
    with safetensors.safe_open(source, "pt") as content:
        config = json.loads(content.metadata()["cfg"])
    state = golden.read(shared, "redimnet_b2_official_weights")
    torch.save({"model_config": config, "state_dict": state}, tmp_path / "b2-vox2-ft_lm.pt")
    succeeds("import-weights", "redimnet", tmp_path / "b2-vox2-ft_lm.pt", tmp_path / "ours")
    vectors = (REDIM, "b2_official.eval.emb")
    assert error_of(tmp_path / "ours", shared, vectors) < golden.OUTPUT


def test_an_import_may_say_which_sizes_were_trained(shared, tmp_path) -> None:
    source = shared / "golden" / "AASIST-L_weights.safetensors"
    size = create_model("aasist_l").embedding_size
    succeeds("import-weights", "aasist_l", source, tmp_path / "a", "--dims", f"8,{size}")
    assert load_model(tmp_path / "a").dims == (8, size)
    for text, says in (("8,16", f"end with {size}"), ("x", "no list of sizes")):
        outcome = glottis("import-weights", "aasist_l", source, tmp_path / "b", "--dims", text)
        assert outcome.code == 2
        assert says in outcome.err


# ------------------------------------------------------------ wrong files


def refused(folder: Path, *words: object) -> str:
    """An import that must fail: code 2, no traceback, nothing written; gives what was said."""
    before = files_below(folder)
    outcome = glottis("import-weights", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert "Traceback" not in outcome.err
    assert files_below(folder) == before
    return outcome.err


@pytest.fixture
def aasist_l(shared: Path) -> State:
    return golden.read(shared, "AASIST-L_weights")


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_a_relative_is_named_whose_file_it_is(shared, tmp_path, aasist_l) -> None:
    file = saved(aasist_l, tmp_path / "AASIST-L.pth")
    said = refused(tmp_path, "aasist", file, tmp_path / "ours")
    assert "tensors do not fit" in said
    assert "import it as aasist_l" in said
    state = golden.filled_state(shared, "importer_wespeaker_ecapa512_astp192", seed=5)
    file = saved(state, tmp_path / "avg_model.pt")
    assert "import it as ecapa_512" in refused(tmp_path, "ecapa_1024", file, tmp_path / "ours")


def test_the_file_of_another_network_is_refused(shared, tmp_path) -> None:
    file = shared / "golden" / "ge2e_weights.safetensors"
    for arch in ("aasist", "resnetse34l", "redimnet_b0", "resnet34_wespeaker", "vggvox"):
        said = refused(tmp_path, arch, file, tmp_path / "ours")
        assert re.search(r"loaded would be (0|256) of", said)  # 256: the name linear.bias is common
    for arch in ("ecapa_512", "cam_plus_plus"):
        assert "no known format" in refused(tmp_path, arch, file, tmp_path / "ours")


def test_half_a_file_is_refused_and_what_is_missing_named(tmp_path, aasist_l) -> None:
    less = {name: value for name, value in aasist_l.items() if name != "out_layer.weight"}
    file = saved(less, tmp_path / "less.pth")
    said = refused(tmp_path, "aasist_l", file, tmp_path / "ours")
    assert "missing: out_layer.weight 2x160" in said
    file = tmp_path / "cut.pth"
    file.write_bytes((tmp_path / "less.pth").read_bytes()[:50_000])
    assert "cut.pth cannot be read" in refused(tmp_path, "aasist_l", file, tmp_path / "ours")


def test_numbers_that_are_no_weights_are_refused(tmp_path, aasist_l) -> None:
    name = "out_layer.weight"
    for value, reason in [
        (torch.full((2, 160), float("nan")), "not finite: out_layer.weight"),
        (torch.ones(2, 160, dtype=torch.int8), "other type: out_layer.weight is torch.int8"),
    ]:
        file = saved({**aasist_l, name: value}, tmp_path / "odd.pth")
        assert reason in refused(tmp_path, "aasist_l", file, tmp_path / "ours")


def test_two_networks_in_one_file_are_refused(tmp_path, aasist_l) -> None:
    both = {**aasist_l, **{f"module.{name}": value for name, value in aasist_l.items()}}
    file = saved(both, tmp_path / "both.pth")
    assert "two tensors are" in refused(tmp_path, "aasist_l", file, tmp_path / "ours")


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_is_not_run_and_named(tmp_path, aasist_l) -> None:
    trace = tmp_path / "trace"
    file = saved({"model": aasist_l, "args": Payload(trace)}, tmp_path / "evil.pth")
    said = refused(tmp_path, "aasist_l", file, tmp_path / "ours")
    assert not trace.exists()
    assert "reading it would import posix.mkdir" in said or "nt.mkdir" in said
    assert "nothing of it was run" in said


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "holds no named tensors"),
        ({}, "holds no named tensors"),
        ({"net": {"a": torch.ones(1)}, "epoch": 3}, "but also net, epoch"),
        ({"model_config": {"stages_setup": 5}, "state_dict": {"a": torch.ones(1)}}, "not that of"),
    ],
)
def test_a_file_without_named_tensors_is_refused(tmp_path, content, reason) -> None:
    file = saved(content, tmp_path / "odd.pth")
    assert reason in refused(tmp_path, "redimnet_b0", file, tmp_path / "ours")


def test_a_wrong_request_is_refused(shared, tmp_path) -> None:
    file = shared / "golden" / "ge2e_weights.safetensors"
    ours = tmp_path / "ours"
    assert "there is no file" in refused(tmp_path, "ge2e", tmp_path / "absent.pth", ours)
    assert "nosuch" in refused(tmp_path, "nosuch", file, ours)
    assert "format is no option" in refused(tmp_path, "ge2e", file, ours, "format=x")
    assert "no_such" in refused(tmp_path, "ge2e", file, ours, "no_such=3")
    assert "no format 'x'" in refused(tmp_path, "ge2e", file, ours, "--format", "x")
    said = refused(tmp_path, "ge2e", file, ours, "hidden_size=128")
    assert "other shape: lstm.weight_ih_l0 is 512x40 here and 1024x40 in the file" in said
    (tmp_path / "taken").write_text("a file")
    assert "is a file" in refused(tmp_path, "ge2e", file, tmp_path / "taken")


def test_without_a_published_list_there_is_no_importer(shared, tmp_path) -> None:
    file = shared / "golden" / "ge2e_weights.safetensors"
    for arch in (
        "rawnet2",
        "resnetse152",
        "resnet293_wespeaker",
        "redimnet2_b6",
        "nested_original",
    ):
        said = refused(tmp_path, arch, file, tmp_path / "ours")
        assert f"no published checkpoint format is known for '{arch}'" in said
        assert "resnet34_wespeaker" in said  # one of those there are
