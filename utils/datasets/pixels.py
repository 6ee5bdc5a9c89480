"""Keeping decoded and resized images, in memory or on disk, so that later epochs need not decode them again.

On disk they lie in a folder of their own beside the label index, one plain ``.npy`` per image, named after the image
and a digest of its path, size and modification time: a changed image gets a new file, and nothing is written beside
the user's images.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.log import LOGGER

_SPARED = 0.1  # share of memory or disk that stays free
_READERS = 8
_MEMORY_REPORT = Path("/proc/meminfo")


def _free_memory() -> tuple[int, int] | None:
    """(available, total) bytes, or None where the system does not tell."""
    if _MEMORY_REPORT.is_file():
        fields = dict(line.split(":", 1) for line in _MEMORY_REPORT.read_text().splitlines() if ":" in line)
        return tuple(int(fields[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    try:
        import psutil  # noqa: PLC0415 - optional package, for systems without /proc
    except ImportError:
        return None
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def fits_in_memory(needed: int, prefix: str = "") -> bool:
    """Whether so many bytes leave a tenth of the memory free; says so when they do not."""
    memory = _free_memory()
    if memory is None:
        LOGGER.warning(f"{prefix}--cache ram is off: this system does not say how much memory is free (install psutil)")
        return False
    available, total = memory
    if needed > available - _SPARED * total:
        LOGGER.warning(
            f"{prefix}--cache ram is off: the images need {_gigabytes(needed)}, {_gigabytes(available)} are free "
            f"and {_SPARED:.0%} of all memory is spared"
        )
        return False
    return True


def fits_on_disk(needed: int, folder: Path, prefix: str = "") -> bool:
    """Whether a folder can be written and so many bytes leave a tenth of its disk free; says so when not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        usage = shutil.disk_usage(folder)
    except OSError as error:
        LOGGER.warning(f"{prefix}--cache disk is off: {folder} cannot be written ({error.strerror or error})")
        return False
    if needed > usage.free - _SPARED * usage.total:
        LOGGER.warning(
            f"{prefix}--cache disk is off: the images need {_gigabytes(needed)}, {_gigabytes(usage.free)} are free "
            f"and {_SPARED:.0%} of the disk is spared"
        )
        return False
    return True


def fill(load: Callable[[int], object], count: int, description: str) -> Iterator[object]:
    """Call ``load`` for each index on several threads, with a progress bar; results in order."""
    with ThreadPool(_READERS) as pool:
        yield from tqdm(pool.imap(load, range(count), chunksize=8), description, count, leave=False, disable=None)


class DiskStore:
    """Arrays of one split at one size in one folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, image_file: str) -> Path:
        """Where the pixels of an image file, in its present state, are kept."""
        status = Path(image_file).stat()
        state = f"{image_file}\t{status.st_size}\t{status.st_mtime_ns}"
        digest = hashlib.sha256(state.encode(errors="surrogateescape")).hexdigest()[:16]
        return self.folder / f"{Path(image_file).stem}-{digest}.npy"

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
            temporary.unlink(missing_ok=True)
