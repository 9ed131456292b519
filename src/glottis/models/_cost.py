"""What a network costs, counted on shapes: nothing is allocated and nothing is computed.

A multiply-add is 2 FLOP.  Counted are matrix products, convolutions, attention, recurrent layers
(the formulas of torch.utils.flop_counter, and ours for what it does not know) and FFTs as
2.5 N log2 N for real and 5 N log2 N for complex ones.  Not counted is what works value by value or
only moves them: norms, activations, pools, sums, complex products of spectra.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten


class Shapes(TorchDispatchMode):
    """While it is active, operations on meta tensors give shapes, and `flops` counts them by name.

    `uncounted` has the names of the other operations.  Filling a tensor with random numbers does
    nothing, so that networks are built fast; the most common operations take a short way to their
    shape.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        self.uncounted: set[str] = set()

    @property
    def total(self) -> int:
        """FLOP of everything so far."""
        return sum(self.flops.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        first = args[0] if args else None
        if isinstance(first, Tensor) and first.is_meta:
            if packet in _IN_PLACE:
                return first
            if packet in _SHAPES:
                out, flops = _SHAPES[packet](*args, **kwargs)
                if out is not None:
                    if flops:
                        self.flops[packet.__name__] += flops
                    return out
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                out = func.decompose(*args, **kwargs)
                if out is not NotImplemented:
                    return out
        out = func(*args, **kwargs)
        if packet in flop_registry:
            self.flops[packet.__name__] += flop_registry[packet](*args, **kwargs, out_val=out)
        elif packet in _AFTERWARDS:
            self.flops[packet.__name__] += _AFTERWARDS[packet](*args, out)
        else:
            self.uncounted.add(packet.__name__)
        return out


Shaped = tuple[Any, int]


def _like(x: Tensor, *_: Any, **__: Any) -> Shaped:
    return torch.empty_like(x), 0


def _contiguous(x: Tensor, *_: Any, **__: Any) -> Shaped:
    return torch.empty_like(x, memory_format=torch.contiguous_format), 0


def _pair(x: Tensor, other: Any, *_: Any, **__: Any) -> Shaped:
    """Only the plain case: a number, or a tensor of the same shape and type."""
    if isinstance(other, Tensor):
        alike = other.shape == x.shape and other.dtype == x.dtype
        return (torch.empty_like(x), 0) if alike else (None, 0)
    return (torch.empty_like(x), 0) if x.is_floating_point() else (None, 0)


def _linear(x: Tensor, weight: Tensor, _bias: Tensor | None = None) -> Shaped:
    return x.new_empty(*x.shape[:-1], weight.shape[0]), 2 * x.numel() * weight.shape[0]


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Shaped:
    """(..., T, D), (..., U, D) and (..., U, E) -> (..., T, E)."""
    steps = query.numel() // query.shape[-1] * key.shape[-2]
    out = query.new_empty(*query.shape[:-1], value.shape[-1])
    return out, 2 * steps * (query.shape[-1] + value.shape[-1])


def _recurrent(x: Tensor, weights: list[Tensor], layers: int, both: bool, first: bool) -> Any:
    """Output, last state and FLOP of an LSTM or GRU; x: (T, B, F), or (B, T, F) if ``first``."""
    directions = 2 if both else 1
    size = weights[1].shape[1]
    out = x.new_empty(*x.shape[:-1], directions * size)
    state = x.new_empty(layers * directions, x.shape[0 if first else 1], size)
    steps = x.shape[0] * x.shape[1]
    return out, state, 2 * steps * sum(weight.numel() for weight in weights if weight.ndim == 2)


def _lstm(x: Tensor, hx: list[Tensor], weights: list[Tensor], *rest: Any) -> Shaped:
    _, layers, _, _, both, first = rest
    if not isinstance(first, bool):
        return None, 0  # packed sequences
    out, state, flops = _recurrent(x, weights, layers, both, first)
    return (out, state, torch.empty_like(hx[1])), flops


def _gru(x: Tensor, _hx: Tensor, weights: list[Tensor], *rest: Any) -> Shaped:
    _, layers, _, _, both, first = rest
    if not isinstance(first, bool):
        return None, 0
    out, state, flops = _recurrent(x, weights, layers, both, first)
    return (out, state), flops


def _fft(values: Tensor, sizes: Tensor, dims: list[int], factor: float) -> int:
    length = math.prod(sizes.shape[dim] for dim in dims)
    return round(factor * values.numel() * math.log2(length))


_IN_PLACE = {
    *(_aten.uniform_, _aten.normal_, _aten.random_, _aten.fill_, _aten.zero_, _aten.copy_),
    *(_aten.relu_, _aten.sigmoid_, _aten.tanh_, _aten.elu_, _aten.leaky_relu_, _aten.selu_),
    *(_aten.add_, _aten.sub_, _aten.mul_, _aten.div_, _aten.addcmul_, _aten.abs_),
}
_SHAPES: dict[Any, Callable[..., Shaped]] = {
    **dict.fromkeys((_aten.relu, _aten.gelu, _aten.elu, _aten.selu, _aten.silu), _like),
    **dict.fromkeys((_aten.sigmoid, _aten.tanh, _aten.leaky_relu, _aten.batch_norm), _like),
    **dict.fromkeys((_aten.rsqrt, _aten.square, _aten.neg, _aten.log, _aten.sqrt), _like),
    **dict.fromkeys((_aten.layer_norm, _aten.group_norm), _contiguous),
    **dict.fromkeys((_aten.add, _aten.sub, _aten.mul, _aten.div), _pair),
    _aten.linear: _linear,
    _aten.scaled_dot_product_attention: _attention,
    _aten.lstm: _lstm,
    _aten.gru: _gru,
}
_AFTERWARDS: dict[Any, Callable[..., int]] = {
    _aten._fft_r2c: lambda x, dims, _norm, _onesided, out: _fft(x, x, dims, 2.5),
    _aten._fft_c2r: lambda x, dims, _norm, _size, out: _fft(out, out, dims, 2.5),
    _aten._fft_c2c: lambda x, dims, _norm, _forward, out: _fft(x, x, dims, 5.0),
}
