"""Going from batch to batch together: all processes of a launch have the next one and none has a reason to end.

Without this, a process that ends alone would leave the others waiting for its gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from utils.dist import all_gather, any_process, connected
from utils.errors import ProjectError


@dataclass(frozen=True)
class Trouble:
    """Why training does not go on.

    Attributes:
        error: to be raised in every process.
        sound: whether the state after the last batch is good, and so worth saving.
    """

    error: BaseException
    sound: bool = True


def fetch(batches: Iterator[Any]) -> tuple[Any, Trouble | None]:
    """The next batch, None at the end; or why there is none. Defects of ours pass."""
    try:
        return next(batches, None), None
    except ProjectError as error:
        return None, Trouble(error)


def shared_trouble(own: Trouble | None, device: torch.device) -> Trouble | None:
    """The trouble of the first process that has any, the same in all; every process must call it.

    Args:
        own: of this process.
        device: where this process computes.
    """
    if not connected() or not any_process(own is not None, device):
        return own
    number, first = next((rank, trouble) for rank, trouble in enumerate(all_gather(own)) if trouble is not None)
    if isinstance(first.error, ProjectError):
        first.error.add_note(f"in process {number} of this launch")
    return first
