"""Reading and writing PyTorch files: plain data in, and out in one step."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from utils.atomic import replacing
from utils.errors import CheckpointError, first_line
from utils.torch_file import TorchFile

# What torch raises for files that are cut off, changed or something else altogether.
_DAMAGED = (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, NotImplementedError)


def load_plain(path: str | Path) -> Any:
    """Read a PyTorch file that holds tensors and plain values only; nothing in it can run code.

    Raises:
        CheckpointError: when it is missing, damaged, or holds more than plain data.
    """
    source = Path(path)
    try:
        with TorchFile(source) as file:  # first, as torch.load trusts what a file declares
            file.check_all()
        return torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{source}: cannot be read ({error.strerror or error})") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{source}: holds Python objects beside tensors; what loads such files could run code of theirs, and only "
            "YOLOv5's detection models are read without: save the state dict alone"
        ) from error
    except _DAMAGED as error:
        raise CheckpointError(f"{source}: damaged, or no PyTorch file ({first_line(error)})") from error


def save_atomically(content: Any, path: str | Path) -> None:
    """Write beside the target, make sure it is on disk, then rename: a crash leaves the old file or the new one.

    Raises:
        CheckpointError: when the disk is full or the folder cannot be written.
    """
    try:
        with replacing(path, binary=True) as stream:
            torch.save(content, stream)
    except (OSError, RuntimeError) as error:  # torch hides a full disk behind a RuntimeError about its own file
        raise CheckpointError(f"{path}: cannot be written ({_root_of(error)})") from error


def _root_of(error: BaseException) -> str:
    """What the system said, where it said something."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return first_line(error)
