"""Archives of data sets: unpacked into one new folder, whatever their entries are called and say of their size.

Only files and folders come out, without their permissions. A link, a device, a name that leads elsewhere, a name twice,
or more bytes than allowed end the unpacking with an error.
"""

from __future__ import annotations

import errno
import gzip
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from utils.errors import DatasetError, first_line

_ZIP_START, _GZIP_START = b"PK\x03\x04", b"\x1f\x8b"
_TAR_MARK, _TAR_PLACE = b"ustar", 257
_COPIED_AT_ONCE = 1 << 20  # bytes
_ENCRYPTED = 1  # bit of a zip entry's flags
_PLAIN_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others take as much memory as a file says
_UNSAFE = re.compile(r'[\x00-\x1f\\:*?"<>|\x7f]')  # separators, drives and wildcards of one system or another
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, LookupError, RuntimeError,
            MemoryError, gzip.BadGzipFile)  # fmt: skip
_NO_NAMES = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}


def unpack(archive: Path, folder: Path, most: int) -> int:
    """Unpack a zip or tar archive, the latter also when compressed with gzip.

    Args:
        archive: the file.
        folder: empty; nothing is written outside of it.
        most: bytes that may come out.

    Returns:
        How many files came out.

    Raises:
        DatasetError: when the archive is damaged, of another kind, too large, or holds what no data set needs; what has
            come out so far stays in the folder.
        OSError: when the disk is full or the folder cannot be written.
    """
    with archive.open("rb") as stream:
        start = stream.read(_TAR_PLACE + len(_TAR_MARK))
    counter = _Counter(most)
    with _named(archive):
        if start.startswith(_ZIP_START):
            return _unpack_all(_zip_entries(archive), folder, counter)
        if start.startswith(_GZIP_START) or start[_TAR_PLACE:] == _TAR_MARK:
            return _unpack_all(_tar_entries(archive, start.startswith(_GZIP_START), counter), folder, counter)
    raise DatasetError(f"{archive.name}: neither a .zip nor a .tar or .tar.gz archive")


class _Counter:
    """Bytes that may still come out."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise DatasetError(f"holds more than {self._most:,} bytes: far more than its own size lets expect")


@contextmanager
def _named(archive: Path) -> Iterator[None]:
    """Put the archive's name before what is wrong with it."""
    try:
        yield
    except DatasetError as error:
        raise DatasetError(f"{archive.name}: {error}") from error
    except _DAMAGED as error:
        raise DatasetError(f"{archive.name}: damaged ({first_line(error)})") from error


_Entry = tuple[str, bool, IO[bytes] | None]  # name, whether a folder, content


def _zip_entries(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as file:
        for entry in file.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DatasetError(f"its entry {entry.filename!r} is a link or a device")
            if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _PLAIN_METHODS:
                raise DatasetError(f"its entry {entry.filename!r} is encrypted, or compressed in an unusual way")
            if entry.is_dir():
                yield entry.filename, True, None
                continue
            with file.open(entry) as content:
                yield entry.filename, False, content


def _tar_entries(archive: Path, compressed: bool, counter: _Counter) -> Iterator[_Entry]:
    with (
        (gzip.open if compressed else open)(archive, "rb") as stream,
        tarfile.open(fileobj=_Counted(stream, counter), mode="r|") as file,
    ):
        for entry in file:
            if entry.issparse() or not (entry.isreg() or entry.isdir()):
                raise DatasetError(f"its entry {entry.name!r} is a link or a device, or has holes")
            yield entry.name, entry.isdir(), None if entry.isdir() else file.extractfile(entry)


class _Counted:
    """A stream whose every byte counts, also those of headers, which tarfile keeps in memory."""

    def __init__(self, stream: IO[bytes], counter: _Counter) -> None:
        self._stream, self._counter = stream, counter

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._counter.take(len(data))
        return data


def _unpack_all(entries: Iterator[_Entry], folder: Path, counter: _Counter) -> int:
    files = 0
    for name, is_folder, content in entries:
        target = _place_in(folder, name)
        try:
            if is_folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as stream:
                while data := content.read(_COPIED_AT_ONCE):
                    counter.take(len(data))
                    stream.write(data)
        except OSError as error:
            if error.errno not in _NO_NAMES:
                raise
            raise DatasetError(
                f"its entry {name!r} is there twice, as file and folder, or has no usable name"
            ) from error
        files += 1
    return files


def _place_in(folder: Path, name: str) -> Path:
    """Where an entry goes.

    Raises:
        DatasetError: when its name could lead out of the folder, on any system.
    """
    parts = [part for part in PurePosixPath(name).parts if part != "."]
    if name.startswith("/") or ".." in parts or _UNSAFE.search(name):
        raise DatasetError(f"its entry {name!r} would be outside of the data set's folder, or has no plain name")
    return folder.joinpath(*parts)
