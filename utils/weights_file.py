"""Reading and writing PyTorch files: plain data in, and out in one step."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from utils.errors import CheckpointError, first_line

_UNFINISHED = ".tmp"


def load_plain(path: str | Path) -> Any:
    """Read a PyTorch file that holds tensors and plain values only; nothing in it can run code.

    Raises:
        CheckpointError: when it is missing, damaged, or holds more than plain data.
    """
    source = Path(path)
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{source}: cannot be read ({error.strerror or error})") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{source}: not a checkpoint of this project: it is damaged, or holds Python objects beside tensors, as "
            "YOLOv5's own files do; such files could run code, and reading them safely is not available yet"
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{source}: damaged, or no PyTorch file ({first_line(error)})") from error


def save_atomically(content: Any, path: str | Path) -> None:
    """Write beside the target, make sure it is on disk, then rename: a crash leaves the old file or the new one.

    Raises:
        CheckpointError: when the disk is full or the folder cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}{_UNFINISHED}")
    try:
        with temporary.open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def clear_leftovers(folder: Path) -> None:
    """Remove what a process that was killed in the middle of :func:`save_atomically` left in a folder."""
    for leftover in folder.glob(f".*{_UNFINISHED}"):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put a folder's entries on disk, so that a rename survives a power cut; not every system knows how."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
