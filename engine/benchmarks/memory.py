"""How much memory a piece of work needs while it runs.

Counted are the bytes that torch's own allocator hands out: on CUDA by its statistics, on the CPU by the profiler, which
sees every allocation and every release, those inside operations included. So the figure is exact and the same in every
run, which the size of the process is not: the C library keeps freed memory, and pages count when first touched. What
libraries below torch (MKL, oneDNN, cuDNN) take for themselves is not seen.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

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
