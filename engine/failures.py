"""Failures of torch in the middle of training that a user can do something about, in words that say what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from utils.dist import connected, rank
from utils.errors import TrainingError, first_line

_NO_DETERMINISTIC = re.compile(r"^(?P<operation>\S+) does not have a deterministic implementation")
# What gloo and NCCL say when another process is gone; torch has no exception type of its own for it under gloo.
_LOST_PEER = re.compile(r"connection (was )?(closed|reset|refused)|broken pipe|timed out|remote process exited", re.I)
# torch's allocators, oneDNN, C++ and NumPy; on CUDA there is a type of its own
_NO_MEMORY = re.compile(r"not enough memory|can(no|')t allocate memory|bad_alloc|unable to allocate", re.I)
_SOURCE_PLACE = re.compile(r"^\[[^\]]*\]\s*")  # of gloo's own source file, in front of what it says


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, of the GPU or of the machine."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


@contextmanager
def explained(compiled: bool = False) -> Iterator[None]:
    """Turn known failures into a TrainingError; all others pass.

    Args:
        compiled: whether torch.compile is in use, whose failures then end training with a word about it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        reason = _reason(error, compiled)
        if reason is None:
            raise
        raise TrainingError(reason) from error


def _reason(error: RuntimeError | MemoryError, compiled: bool) -> str | None:
    """What to tell the user, None for a failure that is not known here."""
    if is_out_of_memory(error):
        return f"out of memory ({first_line(error)}); lower --batch-size or --imgsz, and leave --cache out"
    found = _NO_DETERMINISTIC.match(str(error))
    if found:
        return (
            f"--deterministic: {found['operation']} has no repeatable implementation here; leave the flag out to be "
            "warned only, or give --no-deterministic"
        )
    if connected() and _is_lost_peer(error):
        said = _SOURCE_PLACE.sub("", first_line(error))
        return (
            f"process {rank()} lost another process of this launch ({said}); the message of the one "
            "that ended first says why. Go on with --resume"
        )
    if compiled and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return f"--compile: torch cannot compile this model here ({first_line(error)}); leave the flag out"
    return None


def _is_lost_peer(error: BaseException) -> bool:
    return type(error).__name__ in ("DistBackendError", "DistNetworkError") or bool(_LOST_PEER.search(str(error)))
