"""Failures of torch in the middle of training that a user can do something about, in words that say what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from utils.dist import connected, rank
from utils.errors import TrainingError, first_line

_NO_DETERMINISTIC = re.compile(r"^(?P<operation>\S+) does not have a deterministic implementation")
# What gloo and NCCL say when another process is gone; torch has no exception type of its own for it under gloo.
_LOST_PEER = re.compile(r"connection (was )?(closed|reset|refused)|broken pipe|timed out|remote process exited", re.I)


_SOURCE_PLACE = re.compile(r"^\[[^\]]*\]\s*")  # of gloo's own source file, in front of what it says


@contextmanager
def explained(compiled: bool = False) -> Iterator[None]:
    """Turn known failures into a TrainingError; all others pass.

    Args:
        compiled: whether torch.compile is in use, whose failures then end training with a word about it.
    """
    try:
        yield
    except RuntimeError as error:
        reason = _reason(error, compiled)
        if reason is None:
            raise
        raise TrainingError(reason) from error


def _reason(error: RuntimeError, compiled: bool) -> str | None:
    """What to tell the user, None for a failure that is not known here."""
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


def _is_lost_peer(error: RuntimeError) -> bool:
    return type(error).__name__ in ("DistBackendError", "DistNetworkError") or bool(_LOST_PEER.search(str(error)))
