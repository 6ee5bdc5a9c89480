"""Times of several things that are compared, taken by turns.

A machine is now faster, now slower: other programs, heat, clock rates. Measured one after the other, two things would
meet two machines. So all are run once, then all again, every second round in the opposite order, and each is described
by the median of its rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rounds:
    """How often to measure.

    Attributes:
        least: rounds at least, however long they take.
        most: rounds at most.
        seconds: begin no further round after this time, once there are ``least``.
        warm_up: rounds before these, which do not count.
    """

    least: int = 3
    most: int = 20
    seconds: float = 10.0
    warm_up: int = 1


@dataclass(frozen=True)
class Timings:
    """Seconds of every round of each thing measured, by name, in the order they were given."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Seconds that a run took in the middle round."""
        return statistics.median(self.seconds[name])

    def medians(self) -> dict[str, float]:
        """All medians by name."""
        return {name: self.median(name) for name in self.seconds}

    def speed_up(self, name: str, base: str) -> float:
        """How many times as fast one is as another: 2 means half the time."""
        return self.median(base) / self.median(name)


def interleaved(
    runs: Mapping[str, Callable[[], object]], device: torch.device | None = None, rounds: Rounds | None = None
) -> Timings:
    """Time several callables by turns.

    Args:
        runs: by name, what to call.
        device: where they work; on CUDA the clock waits until the device has finished.
        rounds: how often.
    """
    rounds = rounds or Rounds()
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds.warm_up):
        for name in names:
            _seconds_of(runs[name], device)
    begun = time.perf_counter()
    for number in range(rounds.most):
        if number >= rounds.least and time.perf_counter() - begun > rounds.seconds:
            break
        for name in names if number % 2 == 0 else reversed(names):
            seconds[name].append(_seconds_of(runs[name], device))
    return Timings(seconds)


def _seconds_of(run: Callable[[], object], device: torch.device | None) -> float:
    _wait_for(device)
    begun = time.perf_counter()
    kept = run()  # until the clock has been read: taking a large result apart is not the run's work
    _wait_for(device)
    taken = time.perf_counter() - begun
    del kept
    return taken


def _wait_for(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
