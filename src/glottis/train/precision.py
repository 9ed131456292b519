"""fp32, bf16 and fp16, and the one loss scale that fp16 needs.

Autocast covers the network only: front ends and loss heads run in fp32 inside.  The loss scale
lives on the device; whether a step was skipped is a device tensor, so nothing waits for it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

INITIAL_SCALE = 2.0**16
GROWTH_INTERVAL = 2000  # steps without overflow before the scale doubles
LARGEST_SCALE = 2.0**24


class Precision:
    """Autocast to a dtype, and the loss scale (1 for ever unless fp16).

    name: "fp32", "bf16" or "fp16".
    """

    def __init__(self, name: Literal["fp32", "bf16", "fp16"], device: torch.device) -> None:
        self.name, self.device, self.dtype = name, device, DTYPES[name]
        self.scaled = name == "fp16"
        self.scale = torch.tensor(INITIAL_SCALE if self.scaled else 1.0, device=device)
        self.clean_steps = torch.zeros((), device=device)  # since the last overflow or growth

    def autocast(self) -> AbstractContextManager[object]:
        """The context for the network."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def update(self, finite: Tensor) -> None:
        """After a step: halve the scale on overflow, double it after 2,000 clean steps."""
        if not self.scaled:
            return
        clean = torch.where(finite, self.clean_steps + 1, 0.0)
        grow = clean >= GROWTH_INTERVAL
        scale = torch.where(finite, torch.where(grow, self.scale * 2, self.scale), self.scale / 2)
        self.scale.copy_(scale.clamp(min=2.0**-14, max=LARGEST_SCALE))
        self.clean_steps.copy_(torch.where(grow, 0.0, clean))

    def state_dict(self) -> dict[str, Tensor]:
        return {"scale": self.scale.clone(), "clean_steps": self.clean_steps.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.scale.copy_(state["scale"])
        self.clean_steps.copy_(state["clean_steps"])
