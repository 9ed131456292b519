"""Numbers of every registered model: gradients, half precision, hard clips, initial scales.

Shapes: B batch, S samples.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatchcase

import pytest
import torch
from torch import Tensor, nn

from glottis.models import Model, create_model
from glottis.models.scales import initial_scales, silent_or_loud
from helpers.models import (
    LONGER,
    SAMPLES,
    SMALLER,
    every_model,
    forward,
    made,
    model_of,
    noise,
    parts,
)

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


def strided_kernels(model: Model) -> set[str]:
    """The weights of convolutions with a stride."""
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d) and max(module.stride) > 1
    }


def assert_finite(
    model: Model, wave: Tensor, dtype: torch.dtype, unsafe: Collection[str] = ()
) -> None:
    """Outputs in training and in eval mode, and the gradients of all but ``unsafe`` parameters."""
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        outputs = forward(model, wave)
        sum(part.float().square().mean() for part in outputs).backward()
        assert all(torch.isfinite(part).all() for part in outputs)
        for parameter_name, parameter in model.named_parameters():
            if parameter.grad is not None and parameter_name not in unsafe:
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
    """In bfloat16 without the kernels that have a stride: on maps of one column torch 2.13 leaves
    their gradient partly unwritten on a CPU."""
    model = model_of(name, training=True)
    unsafe = strided_kernels(model) if dtype == torch.bfloat16 else ()
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
