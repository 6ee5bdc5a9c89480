"""Where a figure was measured, in words, and the threads that it was measured with."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from engine.options.benchmark_base import TorchBenchmarkOptions
from utils.devices import select_device
from utils.errors import BackendError


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Let torch work with so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measurable_device(options: TorchBenchmarkOptions) -> torch.device:
    """The device asked for, where it tells about its memory.

    Raises:
        BackendError: when it is not there, or does not.
    """
    device = select_device(options.device, newline=False)
    if device.type not in ("cpu", "cuda"):
        benchmark = options.benchmark()
        raise BackendError(f"benchmark.py {benchmark} measures on the CPU and on CUDA, and not on {device.type}")
    return device


def describe_machine(device: torch.device, threads: int, cpu_info: Path = Path("/proc/cpuinfo")) -> str:
    """Device, threads and versions, such as ``AMD EPYC 7571, 2 threads, torch 2.15.0, Python 3.11.4``.

    Args:
        device: where it was measured.
        threads: of torch; said for the CPU.
        cpu_info: where Linux says what the processor is called.
    """
    if device.type == "cuda":
        found = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    else:
        found = f"{_processor(cpu_info)}, {threads} thread{'s' * (threads != 1)}"
    return f"{found}, torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}"


def _processor(cpu_info: Path) -> str:
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "CPU"
