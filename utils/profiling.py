"""Stop-watches that wait for the GPU."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import torch


def time_sync() -> float:
    """Seconds of a steady clock, read after CUDA has finished what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Profile:
    """Context manager that measures a block of code.

    Attributes:
        dt: seconds of the last block.
        t: seconds of all blocks so far.
    """

    def __init__(self, t: float = 0.0) -> None:
        self.t = t
        self.dt = 0.0
        self._start = 0.0

    def __enter__(self) -> Self:
        self._start = time_sync()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dt = time_sync() - self._start
        self.t += self.dt
