"""What the launcher says about this process. The environment is read when asked, never on import."""

from __future__ import annotations

import os

from utils.errors import OptionError


def world_size() -> int:
    """Number of processes of this launch; 1 without a launcher."""
    return _environment_number("WORLD_SIZE", 1)


def rank() -> int:
    """Number of this process among all; -1 without a launcher."""
    return _environment_number("RANK", -1)


def local_rank() -> int:
    """Number of this process on its machine; -1 without a launcher."""
    return _environment_number("LOCAL_RANK", -1)


def refuse_distributed() -> None:
    """Stop a launch of several processes.

    Raises:
        OptionError: when WORLD_SIZE is above 1.
    """
    if world_size() > 1:
        raise OptionError(
            f"distributed training (WORLD_SIZE={world_size()}) is not available yet; start one process: python train.py"
        )


def _environment_number(name: str, fallback: int) -> int:
    text = os.environ.get(name, "")
    try:
        return int(text) if text else fallback
    except ValueError as error:
        raise OptionError(f"environment variable {name}={text!r} is not a whole number") from error
