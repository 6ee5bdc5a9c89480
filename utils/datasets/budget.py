"""Whether images kept in memory or on disk leave room for everything else.

What counts as free is the least of what the system has and what the limits of the container leave (control groups of
either version, the process's own and those above it). Pages of files that were read count as free, since the kernel
gives them back when memory is asked for.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

_SPARED = 0.1  # share of memory or disk that stays free
_LITTLE, _LITTLE_SHARE = 1e9, 0.25  # bytes, and share of what is free, that are taken without being asked for
_SPARED_ON_DISK = 5e9  # bytes at the most: a tenth of a large disk is more than anybody needs for checkpoints and logs


@dataclass(frozen=True)
class MemoryFiles:
    """Where the kernel says how much memory there is."""

    system: Path = Path("/proc/meminfo")
    membership: Path = Path("/proc/self/cgroup")
    groups: Path = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Bytes that are free and bytes that there are, and the file of the limit that says so, if it is one."""

    available: int
    total: int
    limit: str = ""


@dataclass(frozen=True)
class _GroupNames:
    """What the files of one version of control groups are called."""

    limits: tuple[str, ...]
    used: str
    reclaimable: tuple[str, ...]  # lines of memory.stat


_VERSION_1 = _GroupNames(
    ("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")
)
_VERSION_2 = _GroupNames(("memory.max", "memory.high"), "memory.current", ("active_file", "inactive_file"))


def read_memory(files: MemoryFiles | None = None) -> Memory | None:
    """Memory of the system or of the tightest container around this process; None where the system does not tell."""
    files = files or MemoryFiles()
    system = _system_memory(files.system)
    if system is None:
        return None
    found = [system]
    for folder, names in _own_groups(files):
        for name in names.limits:
            limit = _read_number(folder / name)
            if limit is not None and limit < system.total:  # version 1 writes "none" as a very large number
                left = max(limit - _group_use(folder, names), 0)
                found.append(Memory(left, limit, str(folder / name)))
    tightest = min(found, key=lambda memory: memory.available)
    return replace(tightest, total=min(memory.total for memory in found))


def _system_memory(file: Path) -> Memory | None:
    fields = _read_fields(file)
    if "MemAvailable" in fields and "MemTotal" in fields:
        return Memory(fields["MemAvailable"] * 1024, fields["MemTotal"] * 1024)
    try:
        import psutil  # noqa: PLC0415 - optional package, for systems without /proc
    except ImportError:
        return None
    memory = psutil.virtual_memory()
    return Memory(memory.available, memory.total)


def _own_groups(files: MemoryFiles) -> Iterator[tuple[Path, _GroupNames]]:
    """Folders of the groups that this process is in, the innermost first.

    Inside a container the path may name a folder that only the machine around it has; the container's own group is
    then at the root.
    """
    for line in _read_text(files.membership).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            roots, names = [files.groups, files.groups / "unified"], _VERSION_2
        elif "memory" in controllers.split(","):
            roots, names = [files.groups / "memory"], _VERSION_1
        else:
            continue
        parts = [part for part in Path(path).parts if part not in ("/", "..")]
        for root in roots:
            for depth in range(len(parts), -1, -1):
                yield root.joinpath(*parts[:depth]), names


def _group_use(folder: Path, names: _GroupNames) -> int:
    """Bytes in use that the kernel cannot take back by forgetting files."""
    statistics = _read_fields(folder / "memory.stat")
    return (_read_number(folder / names.used) or 0) - sum(statistics.get(name, 0) for name in names.reclaimable)


def _read_text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _read_number(file: Path) -> int | None:
    text = _read_text(file).strip()
    return int(text) if text.isdecimal() else None  # "max" is no limit


def _read_fields(file: Path) -> dict[str, int]:
    """Lines ``name number`` or ``name: number kB``."""
    rows = (line.replace(":", " ").split() for line in _read_text(file).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def memory_shortage(needed: int, copies: int = 1, files: MemoryFiles | None = None) -> str:
    """Why images cannot be kept in memory; "" when they can, with a tenth of all memory to spare.

    Args:
        needed: bytes of one copy.
        copies: processes on this machine that each keep one.
        files: where to read how much there is.
    """
    memory = read_memory(files)
    if memory is None:
        return "this system does not say how much memory is free (install psutil)"
    if needed * copies <= memory.available - _SPARED * memory.total:
        return ""
    each = f" ({_gigabytes(needed)} in each of {copies} processes)" if copies > 1 else ""
    where = f" under the limit in {memory.limit}" if memory.limit else ""
    return (
        f"the images need {_gigabytes(needed * copies)}{each}, {_gigabytes(memory.available)} are free{where} "
        f"and {_SPARED:.0%} of {_gigabytes(memory.total)} is spared"
    )


def more_than_little(needed: int, copies: int = 1, files: MemoryFiles | None = None) -> str:
    """Why images are not kept in memory unasked; "" when 1 GB, and a quarter of what is free, is enough for them.

    Args:
        needed: bytes of one copy.
        copies: processes on this machine that each keep one.
        files: where to read how much there is.
    """
    memory = read_memory(files)
    if memory is not None and needed * copies <= min(_LITTLE, _LITTLE_SHARE * memory.available):
        return ""
    return f"the images need {_gigabytes(needed * copies)}, which is not little"


def disk_shortage(needed: int, folder: Path) -> str:
    """Why images cannot be kept in a folder; "" when they can, with a tenth of the disk, 5 GB at the most, to spare.

    Args:
        needed: bytes still to be written.
        folder: made where it is missing; its parent exists.
    """
    try:
        usage = shutil.disk_usage(folder.parent)
        spared = min(_SPARED * usage.total, _SPARED_ON_DISK)
        if needed > max(usage.free - spared, 0):
            return (
                f"the images need {_gigabytes(needed)} more, {_gigabytes(usage.free)} are free "
                f"and {_gigabytes(spared)} of them are spared"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror or error})"
    return ""


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
