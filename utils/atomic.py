"""Writing files so that whoever reads one, also after a crash or a power cut, finds the old content or the new."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_UNFINISHED = ".tmp"


@contextmanager
def replacing(path: str | Path, binary: bool = False) -> Iterator[IO[Any]]:
    """A stream beside a file that takes the file's place, in one step, once the block has ended well.

    Args:
        path: what to replace; need not be there.
        binary: bytes instead of UTF-8 text.

    Raises:
        OSError: when the disk is full or the folder cannot be written; the file is then as before.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}{_UNFINISHED}")
    try:
        with temporary.open("wb") if binary else temporary.open("w", encoding="utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def clear_leftovers(folder: Path) -> None:
    """Remove what a process that was killed within :func:`replacing` left in a folder."""
    for leftover in folder.glob(f".*{_UNFINISHED}"):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put a folder's entries on disk, so that a rename survives a power cut; not every file system knows how."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # the file itself is in place
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
