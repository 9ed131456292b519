"""How a network leaves autocast, as for statistics, pooling and classifiers, which are float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which operations keep the type of their inputs, on the device of ``x``."""
    if x.device.type == "meta":  # shapes without values have no autocast
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` itself if it is float32 or float64, half types as float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
