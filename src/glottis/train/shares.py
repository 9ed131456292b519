"""How much of the gradient each term of the loss makes up, where all of them meet (rule O14).

That place is the embedding; of a network with a decoder it is the code that embedding and
reconstruction are made from.  The gradient there costs the way back through the loss alone, not
through the network, and it is taken at steps whose statistics are logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from glottis.models import Reconstructed, SpoofOutput
from glottis.train import distributed

PREFIX = "share_"


def gradient_squares(values: Mapping[str, Tensor], output: Any, scale: Tensor) -> dict[str, Tensor]:
    """Squared length of the gradient of each (weighted) value at ``output`` of the network.

    scale: of the loss, so that a gradient in half precision is as it will be in the step.
    Empty where the network does not learn: nothing arrives there.
    """
    meeting, *others = _places(output)
    places = [place for place in (meeting, *others) if place.requires_grad]
    if not places:
        return {}
    found = {
        name: torch.autograd.grad(value * scale, places, retain_graph=True, allow_unused=True)
        if value.requires_grad
        else (None,) * len(places)
        for name, value in values.items()
    }
    if all(gradients[0] is not None for gradients in found.values()):
        found = {name: gradients[:1] for name, gradients in found.items()}
    # else (outputs of one compiled piece do not lead to each other): at all outputs together
    zero = torch.zeros((), device=scale.device)
    return {
        name: sum((g.float().square().sum() for g in gradients if g is not None), zero)
        for name, gradients in found.items()
    }


def _places(output: Any) -> tuple[Tensor, ...]:
    """The tensor where the terms meet, then what is made from it."""
    if isinstance(output, Reconstructed):
        return output.code, output.embedding, output.reconstruction
    if isinstance(output, SpoofOutput):
        return output.embedding, output.logits
    return (output,)


def shares(squares: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``share_NAME``: length of each gradient over the sum of the lengths, in all processes."""
    if not squares:
        return {}
    lengths = distributed.mean(torch.stack(list(squares.values()))).sqrt()
    each = lengths / lengths.sum()
    return {f"{PREFIX}{name}": each[index] for index, name in enumerate(squares)}
