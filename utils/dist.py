"""What a launcher such as torchrun says about this process, and talking to the other processes of the launch.

The environment is read when asked, never on import. Everything works alone as well: then a process gathers from and
sends to itself only.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist

from utils.errors import OptionError

PATIENCE = datetime.timedelta(minutes=30)  # reading a large data set for the first time takes one rank that long
_Value = TypeVar("_Value")


def world_size() -> int:
    """Number of processes of this launch; 1 without a launcher."""
    return _environment_number("WORLD_SIZE", 1)


def rank() -> int:
    """Number of this process among all; -1 without a launcher."""
    return _environment_number("RANK", -1)


def local_rank() -> int:
    """Number of this process on its machine; -1 without a launcher."""
    return _environment_number("LOCAL_RANK", -1)


def local_world_size() -> int:
    """Number of processes of this launch on this machine; 1 without a launcher."""
    return _environment_number("LOCAL_WORLD_SIZE", 1)


def is_main() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return rank() <= 0


def connected() -> bool:
    """Whether the processes of this launch can talk to each other; never so alone."""
    return torch_dist.is_available() and torch_dist.is_initialized()


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Connect the processes of a launch inside, and part afterwards; nothing happens in a process of its own.

    Args:
        device: where this process computes: NCCL joins CUDA devices, Gloo everything else.

    Raises:
        OptionError: when the environment names several processes, but not where they meet.
    """
    if world_size() == 1 or connected():
        yield
        return
    nccl = device.type == "cuda" and torch_dist.is_nccl_available()
    try:
        torch_dist.init_process_group("nccl" if nccl else "gloo", timeout=PATIENCE, device_id=device if nccl else None)
    except ValueError as error:
        raise OptionError(
            f"WORLD_SIZE={world_size()} says several processes, but this one cannot find the others ({error}); start "
            "them with torchrun --nproc_per_node N train.py ..."
        ) from error
    try:
        yield
    finally:
        torch_dist.destroy_process_group()


def all_gather(value: _Value) -> list[_Value]:
    """What each process gave, in the order of their ranks; every process gets all.

    Args:
        value: anything that pickles; it comes from processes of the same launch only.
    """
    if not connected():
        return [value]
    gathered: list[Any] = [None] * torch_dist.get_world_size()
    torch_dist.all_gather_object(gathered, value)
    return gathered


def any_process(holds: bool, device: torch.device) -> bool:
    """Whether something holds in at least one process; every process gets the answer.

    Args:
        holds: in this one.
        device: where this process computes.
    """
    if not connected():
        return holds
    flag = torch.tensor(int(holds), device=device)
    torch_dist.all_reduce(flag, torch_dist.ReduceOp.MAX)
    return bool(flag)


def from_main(value: _Value) -> _Value:
    """The value that the main process gave, in every process; the others' is not looked at."""
    if not connected():
        return value
    carried = [value]
    torch_dist.broadcast_object_list(carried, src=0)
    return carried[0]


@torch.no_grad()
def tensors_from_main(tensors: Sequence[torch.Tensor]) -> None:
    """Overwrite tensors in place with the main process's; all processes name equal shapes in equal order."""
    if not connected():
        return
    for tensor in tensors:
        torch_dist.broadcast(tensor, src=0)


@contextmanager
def main_first() -> Iterator[None]:
    """Let the main process go through the block before the others, so that they find what it left on disk."""
    if connected() and not is_main():
        torch_dist.barrier()
    try:
        yield
    finally:
        if connected() and is_main():
            torch_dist.barrier()


def _environment_number(name: str, fallback: int) -> int:
    text = os.environ.get(name, "")
    try:
        return int(text) if text else fallback
    except ValueError as error:
        raise OptionError(f"environment variable {name}={text!r} is not a whole number") from error
