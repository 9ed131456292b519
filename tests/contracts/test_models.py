"""What every registered model promises; a new one is tested by being registered.

Shapes: B batch, S samples, D embedding.
"""

from __future__ import annotations

import inspect
import re
from fnmatch import fnmatchcase
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glottis.config import require_all_read
from glottis.errors import ToolkitError
from glottis.models import MODELS, Model, SpoofOutput, create_model, load_model, save_model
from glottis.models._formats import formats_of
from glottis.models.facts import facts, summary_of
from glottis.models.scales import initial_scales, silent_or_loud
from glottis.rng import generator

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
# options that make a large model small enough for these tests
REDIM_STAGES = [
    {"stride": 1, "num_blocks": 1, "expansion": 2, "reduction": 48},
    {"stride": 3, "num_blocks": 1, "expansion": 1, "reduction": 24},
]
REDIM2_STAGES = [
    {"bins": 1, "frames": 1, "num_blocks": 1, "expansion": 2.0, "reduction": 24},
    {"bins": 3, "frames": 2, "num_blocks": 1, "expansion": 0.5, "reduction": 24},
]
TINY_TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
TINY_ENCODER = {
    **TINY_TRANSFORMER,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
SMALLER: dict[str, dict[str, Any]] = {
    "aasist": {"channels": [8, 16]},
    "aasist_l": {"channels": [8, 12]},
    "ssl_aasist": {
        "encoder": {"trainable": "full", "architecture": TINY_ENCODER},
        "channels": [8, 16],
    },
    "ssl_ecapa": {
        "encoder": {"kind": "w2v_bert", "trainable": "full", "architecture": TINY_TRANSFORMER},
        "channels": 64,
        "aggregated_channels": 96,
    },
    "ssl_mhfa": {"encoder": {"kind": "wavlm", "trainable": "lora", "architecture": TINY_ENCODER}},
    "ssl_mhfa_spoof": {"encoder": {"kind": "hubert", "architecture": TINY_ENCODER}},
    "redimnet": {"stages": REDIM_STAGES, "head_channels": 32, "embedding_norm": True},
    "redimnet2_b0": {"channels": 8, "stages": REDIM2_STAGES, "dual_aggregation": True},
    "redimnet2_b4": {"channels": 8, "stages": REDIM2_STAGES},
    "redimnet2_b5": {"channels": 8, "stages": REDIM2_STAGES},
    "redimnet2_b6": {"channels": 8, "stages": REDIM2_STAGES},
    "redimnet_b0": {"stages": [{**stage, "reduction": 30} for stage in REDIM_STAGES]},
    "redimnet_b1": {"stages": [{**stage, "reduction": 36} for stage in REDIM_STAGES]},
    "redimnet_b2": {"stages": REDIM_STAGES},
    "redimnet_b2_mrl": {"stages": REDIM_STAGES, "head_channels": 64},
    "redimnet_b3": {"stages": REDIM_STAGES},
    "redimnet_b4": {"channels": 16, "stages": REDIM_STAGES},
    "redimnet_b5": {"channels": 16, "stages": REDIM_STAGES},
    "redimnet_b6": {"stages": REDIM_STAGES},
    "lstm_autoencoder": {"hidden_size": 32, "latent_size": 16, "lstm_size": 24},
    "mlp_mixer": {"num_blocks": 2, "channels": 64},
    "mlp_mixer_raw": {"num_blocks": 2, "channels": 64},
    "mlp_mixer_small": {"num_blocks": 2, "channels": 64},
    "nested": {"num_levels": 3},
    "nested_original": {"num_levels": 3},
    "nested_report004": {"num_levels": 3},
    "resnetse101": {"num_blocks": [1, 1, 2, 1], "channels": 4},
    "resnetse152": {"num_blocks": [1, 2, 1, 1], "channels": 4},
    "resnetse34": {"num_blocks": [1, 1, 1, 1], "channels": 8, "reduction": 2},
    "resnetse50": {"num_blocks": [1, 1, 1, 1], "channels": 4},
    "ecapa_1024": {"channels": 128, "aggregated_channels": 96, "variant": "speechbrain"},
    "ecapa_512": {"channels": 64, "aggregated_channels": 96},
    "rawnet2": {"gru_size": 64},
    "rawnet3": {"channels": 64},
    "res2net50_cm": {"num_blocks": [1, 2, 1, 1], "channels": 8},
    "se_res2net50_cm": {"num_blocks": [1, 2, 1, 1], "channels": 8},
    "resnetse34v2": {"features": {"num_mels": 16}},
    "se_resnet": {"channels": [16, 16, 32, 32]},
    "se_resnet_deep": {"channels": [16, 16, 32, 32]},
    "cam_plus_plus": {"num_layers": [1, 2, 1], "segment_frames": 10},
    "conformer_cm": {"num_blocks": 2, "embedding_size": 24},
    "resnet18_wespeaker": {"num_blocks": [1, 1, 1, 1], "channels": 8},
    "resnet34_wespeaker": {"num_blocks": [1, 2, 1, 1], "channels": 8},
    "resnet50_wespeaker": {"num_blocks": [1, 1, 1, 1], "channels": 4},
    "resnet101_wespeaker": {"num_blocks": [1, 1, 1, 2], "channels": 4},
    "resnet152_wespeaker": {"num_blocks": [1, 1, 2, 1], "channels": 4},
    "resnet221_wespeaker": {"num_blocks": [1, 2, 1, 1], "channels": 4},
    "resnet293_wespeaker": {"num_blocks": [2, 1, 1, 1], "channels": 4},
}
# biases that a softmax over frames takes away: no gradient but rounding
SHIFTS = ("pooling.expand.bias", "pooling.attention.expand.bias")
# behind a matrix that starts at zero: no gradient in the first step
BEHIND_ZEROS = ("*.lora_A.*",)

# what a layer gives before training, as multiples of the deviation of what the network is given:
# measured at full size from 0.0016 (gates on decibels) to 530 (products of nodes, on a wave)
SCALES = (1e-3, 1e3)
EMBEDDING = (0.01, 10.0)
"""deviation of the embedding: 1 behind a batch norm, 0.05 at unit length"""
QUIET = (
    "*.lora_B.*",  # zero, so that the pretrained network starts as it is
    *("pooling.frames", "pooling.attention"),  # weights of frames, which add up to 1
    "*.se.expand",  # before a sigmoid; on decibels, whose deviation is 14
)

SAMPLES = 6_000
# clips of more than one frame at the pooling: attention over a single frame has no gradient
LONGER = {"vggvox": 16_000}

no_transformers = pytest.mark.skipif(
    find_spec("transformers") is None or find_spec("peft") is None, reason="needs the extra 'ssl'"
)
every_model = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=no_transformers) if name.startswith("ssl_") else name
        for name in MODELS.names()
    ],
)


@cache
def made(name: str) -> tuple[Model, dict[str, Tensor]]:
    """The model at the options of these tests, and its initial tensors."""
    model = create_model(name, seed=0, **SMALLER.get(name, {}))
    return model, {key: value.clone() for key, value in model.state_dict().items()}


def built(name: str) -> Model:
    return made(name)[0]


def model_of(name: str, training: bool) -> Model:
    model, initial = made(name)
    model.load_state_dict(initial)
    model.zero_grad()
    return model.train(training)


def noise(batch: int, samples: int) -> Tensor:
    rng = generator(7, "contract", samples)
    return torch.from_numpy(rng.standard_normal((batch, samples)).astype(np.float32) * 0.1)


def parts(output: Tensor | SpoofOutput) -> list[Tensor]:
    return list(output) if isinstance(output, tuple) else [output]


def forward(model: Model, wave: Tensor) -> list[Tensor]:
    return parts(model(wave, **model.draw(generator(0, "draw"))))


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
def test_gradient_reaches_every_parameter(name: str) -> None:
    model = model_of(name, training=True)
    outputs = forward(model, noise(4, max(LONGER.get(name, SAMPLES), model.min_samples)))
    rng = torch.Generator().manual_seed(0)
    sum((part * torch.randn(part.shape, generator=rng)).sum() for part in outputs).backward()
    for parameter_name, parameter in model.network.named_parameters():
        unused = any(fnmatchcase(parameter_name, p) for p in model.network.unused_parameters)
        if unused:
            assert parameter.grad is None, f"{parameter_name} is declared unused"
            assert not parameter.requires_grad, f"{parameter_name} must not ask for a gradient"
        else:
            assert parameter.grad is not None, f"no gradient reaches {parameter_name}"
            assert torch.isfinite(parameter.grad).all(), parameter_name
            moves = (parameter.grad != 0).any()
            shift = any(fnmatchcase(parameter_name, p) for p in (*SHIFTS, *BEHIND_ZEROS))
            assert moves or shift, f"the gradient of {parameter_name} is zero"


def hard_clips(samples: int) -> Tensor:
    """Silence, an offset, the loudest tone there is, and noise clipped to full scale."""
    square = torch.ones(samples)
    square[::2] = -1.0
    return torch.stack(
        [torch.zeros(samples), torch.ones(samples), square, noise(1, samples)[0].sign()]
    )


def assert_finite(model: Model, wave: Tensor, dtype: torch.dtype, unsafe: int = 0) -> None:
    """Outputs in training and in eval mode, and the gradients but those with ``unsafe`` axes."""
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        outputs = forward(model, wave)
        sum(part.float().square().mean() for part in outputs).backward()
        assert all(torch.isfinite(part).all() for part in outputs)
        for parameter_name, parameter in model.named_parameters():
            if parameter.grad is not None and (not unsafe or parameter.ndim != unsafe):
                assert torch.isfinite(parameter.grad).all(), parameter_name
        with torch.inference_mode():
            assert all(torch.isfinite(part).all() for part in parts(model.eval()(wave)))


@every_model
def test_bfloat16_is_finite_on_silence_loud_and_offset(name: str) -> None:
    model = model_of(name, training=True)
    assert_finite(model, hard_clips(max(SAMPLES, model.min_samples)), torch.bfloat16)


@every_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_on_the_shortest_clips(name: str, dtype: torch.dtype) -> None:
    """In bfloat16 without the kernels of 2-D convolutions: on maps of one column with a stride, the
    CPU kernels of torch 2.13 leave their gradient partly unwritten."""
    model = model_of(name, training=True)
    unsafe = 4 if dtype == torch.bfloat16 else 0
    assert_finite(model, hard_clips(model.min_samples), dtype, unsafe)


@every_model
def test_float16_is_finite_on_the_shortest_clips(name: str) -> None:
    """In eval mode: without the trainer's loss scaling gradients need not be finite."""
    model = model_of(name, training=False)
    wave = hard_clips(model.min_samples)
    try:
        with torch.autocast("cpu", dtype=torch.float16), torch.inference_mode():
            outputs = parts(model(wave))
    except RuntimeError as error:  # the CPU lacks some operators in half precision
        lacking = re.search(r'"?(\w+)"? not implemented for .?Half', str(error))
        if lacking is None:
            raise
        pytest.skip(f"no {lacking[1]} for float16 on the CPU")
    assert all(torch.isfinite(part).all() for part in outputs)


@every_model
def test_no_layer_is_silent_or_loud_before_training(name: str) -> None:
    scales = initial_scales(model_of(name, training=True), seconds=0.3)
    assert len(scales) >= 4
    wrong = silent_or_loud(scales, *SCALES)
    assert not [scale for scale in wrong if not any(fnmatchcase(scale.layer, p) for p in QUIET)]
    (embedding,) = [scale.deviation for scale in scales if scale.layer == "embedding" == scale.kind]
    assert EMBEDDING[0] < embedding < EMBEDDING[1]


@every_model
def test_the_seed_decides_the_initial_weights(name: str) -> None:
    before = torch.get_rng_state()
    again, other = (create_model(name, seed=seed, **SMALLER.get(name, {})) for seed in (0, 1))
    initial = made(name)[1]
    assert all(torch.equal(value, initial[key]) for key, value in again.state_dict().items())
    same = [key for key, value in other.named_parameters() if torch.equal(value, initial[key])]
    drawn = [value for key, value in initial.items() if key not in same]
    assert sum(value.numel() for value in drawn) > 0.8 * other.num_parameters
    assert torch.equal(torch.get_rng_state(), before)


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
