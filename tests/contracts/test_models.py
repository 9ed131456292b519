"""What every registered model promises; a new one is tested by being registered.

Shapes: B batch, S samples, D embedding.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch

from glottis.config import require_all_read
from glottis.errors import ToolkitError
from glottis.models import MODELS, SpoofOutput, load_model, save_model
from glottis.models._formats import formats_of
from glottis.models.facts import facts, summary_of
from helpers.models import SAMPLES, built, every_model, forward, model_of, noise, parts

# parameters of the default options, those that are kept but not computed included
PARAMETERS = {
    "aasist": 297_866,
    "aasist_l": 85_306,
    "cam_plus_plus": 7_176_224,
    "conformer_cm": 2_367_508,
    "ecapa_1024": 14_657_088,
    "ecapa_512": 6_190_720,
    "ge2e": 1_423_616,
    "lcnn": 275_970,
    "lstm_autoencoder": 3_873_745,
    "mlp_mixer": 7_844_864,
    "mlp_mixer_raw": 7_843_936,
    "mlp_mixer_small": 2_664_576,
    "nested": 1_619_842,
    "nested_original": 1_624_128,
    "nested_report004": 1_624_131,
    "rawnet2": 17_621_410,
    "rawnet3": 16_280_322,
    "redimnet": 4_234_193,
    "redimnet2_b0": 1_115_220,
    "redimnet2_b4": 6_659_744,
    "redimnet2_b5": 8_959_272,
    "redimnet2_b6": 12_394_784,
    "redimnet_b0": 1_004_251,
    "redimnet_b1": 2_126_937,
    "redimnet_b2": 5_067_057,
    "redimnet_b2_mrl": 5_016_305,
    "redimnet_b3": 3_225_021,
    "redimnet_b4": 6_441_521,
    "redimnet_b5": 7_659_761,
    "redimnet_b6": 15_015_473,
    "res2net50_cm": 883_806,
    "resnet101_wespeaker": 15_892_448,
    "resnet152_wespeaker": 19_814_880,
    "resnet18_wespeaker": 4_105_440,
    "resnet221_wespeaker": 23_792_224,
    "resnet293_wespeaker": 28_626_016,
    "resnet34_wespeaker": 6_634_336,
    "resnet50_wespeaker": 11_131_360,
    "resnetse101": 20_914_384,
    "resnetse152": 25_762_960,
    "resnetse34": 7_373_356,
    "resnetse34l": 1_437_078,
    "resnetse34v2": 8_028_492,
    "resnetse50": 15_029_392,
    "se_res2net50_cm": 923_102,
    "se_resnet": 11_981_251,
    "se_resnet_deep": 22_159_555,
    "se_resnet_small": 579_731,
    "ssl_aasist": 94_784_919,
    "ssl_ecapa": 102_529_853,
    "ssl_mhfa": 96_683_530,
    "ssl_mhfa_spoof": 96_684_044,
    "vggvox": 4_295_104,
}


@every_model
def test_it_says_what_it_is(name: str) -> None:
    target = MODELS[name].target
    assert target.task in {"speaker", "spoof"}
    assert target.input in {"wave", "features"}
    assert (target.default_features is None) == (target.input == "wave")
    assert isinstance(target.unused_parameters, tuple)
    text = (inspect.getdoc(target) or "") + (inspect.getmodule(target).__doc__ or "")
    assert re.search(r"\(B, [STF, ]+\)[^\n]*->", text), "the docstring needs shapes"
    assert re.search(r"(19|20)\d\d", text), "the docstring needs a source with its year"
    assert "Initialisation:" in text, "the docstring states the initialisation"
    reference = getattr(target, "reference", "")
    assert re.search(r", .*(19|20)\d\d", reference), "no `reference = 'Name et al., Venue year'`"


def test_no_two_models_have_the_same_description() -> None:
    """The first line of the file, or of the options where models share a file."""
    names: dict[str, list[str]] = {}
    for name in MODELS.names():
        names.setdefault(summary_of(name), []).append(name)
    alike = [found for found in names.values() if len(found) > 1]
    assert not alike, f"the first line of the config's docstring is the same: {alike}"
    short = [line for line in names if len(line) < 20 or line.startswith("Options of")]
    assert not short, "say what the network is"


@every_model
def test_every_option_is_read_and_described(name: str) -> None:
    model = built(name)
    require_all_read(model.config)
    for field, info in MODELS[name].config.__pydantic_fields__.items():
        assert info.description, f"{field} has no description"


@every_model
def test_the_parameter_count_is_the_recorded_one(name: str) -> None:
    size = facts(name).size
    assert size is not None
    assert name in PARAMETERS, f"record {size.parameters} for {name} in {Path(__file__).name}"
    assert size.parameters == PARAMETERS[name]


@every_model
def test_output_shapes_and_types(name: str) -> None:
    model = model_of(name, training=False)
    samples = max(SAMPLES, model.min_samples)
    with torch.inference_mode():
        output = model(noise(2, samples))
    assert isinstance(output, SpoofOutput) == (model.task == "spoof")
    shapes = [tuple(part.shape) for part in parts(output)]
    expected = [(2, model.embedding_size)]
    assert shapes == (expected if model.task == "speaker" else [*expected, (2, 2)])
    assert all(part.dtype == torch.float32 for part in parts(output))


@every_model
def test_the_minimum_length_is_enough_and_needed(name: str) -> None:
    model = model_of(name, training=False)
    with torch.inference_mode():
        assert all(torch.isfinite(part).all() for part in parts(model(noise(2, model.min_samples))))
        with pytest.raises(ToolkitError, match=f"at least {model.min_samples}"):
            model(noise(2, model.min_samples - 1))
    loss = sum(part.square().sum() for part in forward(model.train(), noise(2, model.min_samples)))
    assert torch.isfinite(loss)


@every_model
def test_a_batch_of_eight_equals_one_by_one(name: str) -> None:
    model = model_of(name, training=False)
    wave = noise(8, max(SAMPLES, model.min_samples))
    with torch.inference_mode():
        together = parts(model(wave))
        alone = [parts(model(item[None])) for item in wave]
    for index, part in enumerate(together):
        single = torch.cat([item[index] for item in alone])
        scale = float(part.abs().max())
        torch.testing.assert_close(part, single, rtol=1e-4, atol=1e-5 * scale)


@every_model
def test_save_and_load_give_the_same_model(name: str, tmp_path: Path) -> None:
    model = model_of(name, training=False)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.config == model.config
    assert loaded.features_config == model.features_config
    wave = noise(1, max(SAMPLES, model.min_samples))
    with torch.inference_mode():
        for a, b in zip(parts(loaded(wave)), parts(model(wave)), strict=True):
            assert torch.equal(a, b)


@every_model
def test_the_state_dict_holds_no_tables_of_the_front_end(name: str) -> None:
    names = list(built(name).state_dict())
    assert names
    assert all(entry.startswith("network.") for entry in names)


@every_model
def test_original_names_do_not_collide(name: str) -> None:
    network = built(name).network
    formats = formats_of(type(network))
    if not formats:
        pytest.skip("no published checkpoint format")
    for kind in formats:
        original_name = getattr(network, "original_name", kind.original_name)
        names = [original_name(entry) for entry in network.state_dict()]
        assert len(set(names)) == len(names), kind.name
