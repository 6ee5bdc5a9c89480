"""How much memory a piece of work needs while it runs.

Counted are the bytes that torch's own allocator hands out: on CUDA by its statistics, on the CPU by the profiler, which
sees every allocation and every release, those inside operations included. So the figure is exact and the same in every
run, which the size of the process is not: the C library keeps freed memory, and pages count when first touched. What
libraries below torch (MKL, oneDNN, cuDNN) take for themselves is not seen.
"""

from __future__ import annotations

import gc
import json
import tempfile
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from utils.datasets.budget import read_memory
from utils.errors import BackendError

_ALLOCATION = "[memory]"  # the profiler's name for an allocation, and with a negative size for a release


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Most bytes of tensors alive at once during a call, above what was there before; its result counts.

    Args:
        run: what to call; once on the CPU, twice on CUDA.
        device: where it works, the CPU or CUDA.

    Raises:
        BackendError: on another device, which does not tell.
    """
    if device.type == "cuda":
        return _peak_on_cuda(run, device)
    if device.type == "cpu":
        return _peak_on_cpu(run)
    raise BackendError(f"memory can be measured on the CPU and on CUDA, and not on {device.type}; use --device cpu")


def free_bytes(device: torch.device) -> int | None:
    """Bytes that may still be taken on a device; None where nobody tells."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for what comes next
        return torch.cuda.mem_get_info(device)[0] + kept
    memory = read_memory()
    return None if memory is None else memory.available


@dataclass(frozen=True)
class Traced:
    """Bytes of Python objects and NumPy arrays: what a call's result holds, and the most during the call."""

    kept: int
    peak: int


def traced_bytes(run: Callable[[], object]) -> Traced:
    """Bytes that Python and NumPy take during a call, above what was there before; several times slower than the call.

    Args:
        run: what to call, once.
    """
    tracemalloc.start()
    try:
        result = run()
        peak = tracemalloc.get_traced_memory()[1]
        gc.collect()  # what only a circle of references keeps alive is not the result's
        kept = tracemalloc.get_traced_memory()[0]
        del result
    finally:
        tracemalloc.stop()
    return Traced(kept, peak)


def _peak_on_cuda(run: Callable[[], object], device: torch.device) -> int:
    run()  # libraries take their workspaces at the first use and keep them
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    kept = run()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    del kept
    return peak


def _peak_on_cpu(run: Callable[[], object]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorder:
        run()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"  # what the profiler makes public of single allocations
        recorder.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event for event in events if event.get("name") == _ALLOCATION]
    alive = peak = 0
    for event in sorted(changes, key=lambda event: event["ts"]):
        alive += event["args"]["Bytes"]
        peak = max(peak, alive)
    return peak
