"""Times of several things that are compared, taken by turns.

A machine is now faster, now slower: other programs, heat, clock rates. Measured one after the other, two things would
meet two machines. So all are run once, then all again, every second round in the opposite order, and each is described
by the median of its rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Rounds:
    """How often to measure.

    Attributes:
        least: rounds at least, however long they take.
        most: rounds at most.
        seconds: begin no further round after this time, once there are ``least``.
        settling: calls of each right before its timed one. What has just run leaves caches and the C library's memory
            behind in its own way: with one such call a thing meets what itself left, as it does in steady use, and
            does not pay for its rival; see docs/benchmarks.md for how much that is.
    """

    least: int
    most: int
    seconds: float
    settling: int = 0


def interleaved(runs: Mapping[Name, Callable[[], object]], device: torch.device, rounds: Rounds) -> dict[Name, float]:
    """Time several callables by turns.

    Args:
        runs: by name, what to call.
        device: where they work; on CUDA the clock waits until the device has finished.
        rounds: how often. All of them count: let what is slow at its first call be called before.

    Returns:
        Seconds of each, the median of its rounds, in the order of ``runs``.
    """
    return {name: statistics.median(taken) for name, taken in interleaved_rounds(runs, device, rounds).items()}


def interleaved_rounds(
    runs: Mapping[Name, Callable[[], object]],
    device: torch.device,
    rounds: Rounds,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, list[float]]:
    """Time several callables by turns, and keep every round.

    Args:
        runs: as of :func:`interleaved`.
        device: likewise.
        rounds: likewise.
        clock: tells seconds; ``time.thread_time`` counts the processor's for work of a single thread, which neighbours
            disturb less.

    Returns:
        Seconds of every round of each, in the order of ``runs``.
    """
    names = list(runs)
    seconds: dict[Name, list[float]] = {name: [] for name in names}
    begun = time.perf_counter()
    for number in range(rounds.most):
        if number >= rounds.least and time.perf_counter() - begun > rounds.seconds:
            break
        for name in names if number % 2 == 0 else reversed(names):
            for _ in range(rounds.settling):
                runs[name]()
            seconds[name].append(_seconds_of(runs[name], device, clock))
    return seconds


def _seconds_of(run: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    _wait_for(device)
    begun = clock()
    kept = run()  # until the clock has been read: taking a large result apart is not the run's work
    _wait_for(device)
    taken = clock() - begun
    del kept
    return taken


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
