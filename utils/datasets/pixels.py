"""Decoding every image of a split once, and keeping the pixels on disk so that later epochs need not decode them again.

They lie in a folder of their own beside the label index, one plain ``.npy`` per image, named after the image and a
digest of its path, size and modification time: a changed image gets a new file, and nothing is written beside the
user's images.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.threads import in_threads

_STEM = 50  # characters of a file's name, for people; in some alphabets a name may have no more than 80


def for_each(task: Callable[[int], None], count: int, description: str, quiet: bool = False) -> None:
    """Call a task with each number below ``count``, on several threads, with a progress bar unless ``quiet``."""
    for _ in in_threads(task, range(count), description, quiet=quiet):
        pass


class DiskStore:
    """Arrays of one split at one size in one folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, image_file: str) -> Path:
        """Where the pixels of an image file, in its present state, are kept."""
        status = Path(image_file).stat()
        state = f"{image_file}\t{status.st_size}\t{status.st_mtime_ns}"
        digest = hashlib.sha256(state.encode(errors="surrogateescape")).hexdigest()[:16]
        return self.folder / f"{Path(image_file).stem[:_STEM]}-{digest}.npy"

    def read(self, path: Path) -> np.ndarray | None:
        """The stored pixels, or None when they are missing or damaged."""
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None

    def write(self, path: Path, image: np.ndarray) -> None:
        """Store pixels; a full disk stores nothing."""
        temporary = path.with_name(f"{path.stem}.{os.getpid()}.part")
        try:
            with temporary.open("wb") as stream:
                np.save(stream, image, allow_pickle=False)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):  # on a read-only disk even this fails
                temporary.unlink(missing_ok=True)
