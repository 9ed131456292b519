"""Memory by counting: the bytes of all tensors that are alive, at their peak."""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LivePeak(TorchDispatchMode):
    """Counts what the operations inside the block allocate and have not freed yet.

    Each storage counts once, from the operation that made it; weights made before do not.  On the
    meta device nothing is computed, so that steps of any size can be counted in seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        if func.is_view or not tensors:
            return out
        for key in [key for key, (ref, _) in self._alive.items() if ref.expired()]:
            self.now -= self._alive.pop(key)[1]
        for storage in (tensor.untyped_storage() for tensor in tensors):
            ref = StorageWeakRef(storage)
            if ref.cdata not in self._alive:
                self._alive[ref.cdata] = (ref, storage.nbytes())
                self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        return out
