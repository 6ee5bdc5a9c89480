"""Choosing a device, and small helpers around where a model runs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tomllib
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from utils.errors import BackendError
from utils.log import LOGGER
from utils.paths import PROJECT_ROOT

GIB = 1 << 30  # bytes
_Function = TypeVar("_Function", bound=Callable)


def project_version() -> str:
    """Version of this project: of the checkout when there is one, else of the installed package."""
    description = PROJECT_ROOT / "pyproject.toml"
    if description.is_file():
        project = tomllib.loads(description.read_text(encoding="utf-8")).get("project", {})
        return f"{project.get('name', 'yolov5')} {project.get('version', '?')}"
    try:
        return f"yolov5-biformer {importlib.metadata.version('yolov5-biformer')}"
    except importlib.metadata.PackageNotFoundError:
        return "yolov5-biformer"


def select_device(device: str | torch.device = "", batch_size: int = 0, newline: bool = True) -> torch.device:
    """Turn a ``--device`` text into a torch device and log one line about the machine.

    Args:
        device: "" = the first GPU, else the CPU; "cpu"; "mps"; "0" or "cuda:0"; "0,1", which makes these two GPUs the
            only visible ones.
        batch_size: when given with several GPUs it must divide by their number.
        newline: end the line with an empty one.

    Raises:
        BackendError: when that device is not there, or the batch does not divide.
    """
    wanted = str(device).strip().lower().replace("cuda:", "").replace(" ", "").strip("()'")
    if wanted == "cuda":
        wanted = "0"
    chosen, title = _resolve(wanted, batch_size)
    LOGGER.info(
        f"{project_version()}, Python {platform.python_version()}, torch {torch.__version__}, {title}" + "\n" * newline
    )
    return chosen


def _resolve(wanted: str, batch_size: int) -> tuple[torch.device, str]:
    """The device and the words that describe it."""
    if wanted == "cpu":
        return torch.device("cpu"), "CPU"
    if wanted == "mps":
        if not torch.backends.mps.is_available():
            raise BackendError("--device mps: this machine has no MPS device; use --device cpu")
        return torch.device("mps"), "MPS"
    if wanted == "":
        return (torch.device("cuda:0"), _gpu_title([0])) if torch.cuda.is_available() else (torch.device("cpu"), "CPU")
    numbers = _show_only(wanted)
    if batch_size > 0 and batch_size % len(numbers):
        raise BackendError(
            f"--batch-size {batch_size} must be a multiple of the {len(numbers)} devices --device {wanted}"
        )
    return torch.device("cuda:0"), _gpu_title(list(range(len(numbers))))


def _show_only(wanted: str) -> list[str]:
    """Make the GPUs of a list like "0,1" the visible ones; the environment stays as it was when they are not there."""
    numbers = [part for part in wanted.split(",") if part]
    if not numbers or not all(part.isdigit() for part in numbers):
        raise BackendError(f"--device {wanted!r} is no device: expected cpu, mps, 0, or a list such as 0,1")
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(numbers)
    if torch.cuda.is_available() and torch.cuda.device_count() >= len(numbers):
        return numbers
    if before is None:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = before
    raise BackendError(
        f"--device {wanted}: torch sees {torch.cuda.device_count()} CUDA devices here; "
        "use --device cpu or another number"
    )


def _gpu_title(indices: list[int]) -> str:
    properties = [torch.cuda.get_device_properties(index) for index in indices]
    return ", ".join(
        f"CUDA:{index} ({gpu.name}, {gpu.total_memory / GIB:.0f} GiB)"
        for index, gpu in zip(indices, properties, strict=True)
    )


def is_parallel(model: nn.Module) -> bool:
    """Whether a model is wrapped for several devices."""
    return isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))


def de_parallel(model: nn.Module) -> nn.Module:
    """The model inside such a wrapper, or the model itself."""
    return model.module if is_parallel(model) else model


def smart_inference_mode() -> Callable[[_Function], _Function]:
    """Decorator that runs a function without recording gradients."""
    return torch.inference_mode()


def memory_text(device: torch.device) -> str:
    """GPU memory held by torch as a short text, ``0G`` off CUDA."""
    held = torch.cuda.memory_reserved(device) if device.type == "cuda" else 0
    return f"{held / 1e9:.3g}G"
