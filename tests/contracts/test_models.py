"""What every registered model promises; a new one is tested by being registered.

Shapes: B batch, S samples, D embedding.
"""

from __future__ import annotations

import inspect
import re
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glottis.config import require_all_read
from glottis.errors import ToolkitError
from glottis.models import MODELS, Model, SpoofOutput, create_model, load_model, save_model
from glottis.rng import generator

# parameters of the default options, those that are kept but not computed included
PARAMETERS = {
    "aasist": 297_866,
    "aasist_l": 85_306,
    "resnetse34l": 1_437_078,
}
# options that make a large model small enough for these tests
SMALLER: dict[str, dict[str, Any]] = {}

SAMPLES = 6_000

every_model = pytest.mark.parametrize("name", MODELS.names())


@cache
def built(name: str) -> Model:
    return create_model(name, seed=0, **SMALLER.get(name, {}))


def model_of(name: str, training: bool) -> Model:
    model = built(name)
    model.load_state_dict(create_model(name, seed=0, **SMALLER.get(name, {})).state_dict())
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


def test_no_two_models_have_the_same_description() -> None:
    """`glottis models` shows the first line of the file."""
    lines = [str(inspect.getmodule(entry.target).__doc__).splitlines()[0] for entry in MODELS]
    assert len(set(lines)) == len(MODELS.names())


@every_model
def test_every_option_is_read_and_described(name: str) -> None:
    model = built(name)
    require_all_read(model.config)
    for field, info in MODELS[name].config.__pydantic_fields__.items():
        assert info.description, f"{field} has no description"


@every_model
def test_the_parameter_count_is_the_recorded_one(name: str) -> None:
    count = create_model(name, seed=0).num_parameters
    assert name in PARAMETERS, f"record {count} for {name} in {Path(__file__).name}"
    assert count == PARAMETERS[name]


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
    outputs = forward(model, noise(4, max(SAMPLES, model.min_samples)))
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
            assert (parameter.grad != 0).any(), f"the gradient of {parameter_name} is zero"


@every_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_on_silence_loud_and_offset(name: str, dtype: torch.dtype) -> None:
    model = model_of(name, training=True)
    samples = max(SAMPLES, model.min_samples)
    square = torch.ones(samples)
    square[::2] = -1.0
    wave = torch.stack(
        [torch.zeros(samples), torch.ones(samples), square, noise(1, samples)[0].sign()]
    )
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        outputs = forward(model, wave)
        sum(part.float().square().mean() for part in outputs).backward()
        assert all(torch.isfinite(part).all() for part in outputs)
        for parameter_name, parameter in model.named_parameters():
            if parameter.grad is not None:
                assert torch.isfinite(parameter.grad).all(), parameter_name
        with torch.inference_mode():
            assert all(torch.isfinite(part).all() for part in parts(model.eval()(wave)))


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
    if not hasattr(network, "original_name"):
        pytest.skip("no published checkpoint format")
    names = [network.original_name(entry) for entry in network.state_dict()]
    assert len(set(names)) == len(names)
