"""How many bytes of tensors are alive at once while something runs."""

from __future__ import annotations

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts the storages that operations make, from the moment they are made until nothing holds them.

    Unlike the process's size it is exact and the same on every machine. What an operation uses inside itself, and
    tensors that were there before, are not seen.

    Attributes:
        peak: bytes alive at once, at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation and look at what it gave."""
        given = {id_of(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and id_of(tensor) not in given:
                storage = tensor.untyped_storage()
                self._alive[id_of(tensor)] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def id_of(tensor: torch.Tensor) -> int:
    """What tells the storages alive at one time apart."""
    return tensor.untyped_storage()._cdata


def peak_of_training(module: torch.nn.Module, *shape: int) -> int:
    """Most bytes alive during one forward and backward pass over a random (B, C, H, W) map, gradients included."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with LiveMemory() as memory:
        module(x).square().mean().backward()
    return memory.peak
