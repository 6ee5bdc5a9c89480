"""The file of a label index: columns of numbers one behind the other, mapped into memory and shared by all who read it.

Layout, all numbers little-endian:

- 20 bytes: the word ``LABELIDX``, the format, the length of the header in bytes, the header's CRC-32;
- the header, JSON: ``versions`` of what read the labels and the images, and for each of :data:`COLUMNS` its number of
  rows and its CRC-32;
- the columns in the order of :data:`COLUMNS`, each from a multiple of 64 bytes on.

Types and places are not in the file, they follow from the table here and the numbers of rows; so a file whose header
lies has the wrong length, which is seen before anything is read. Whoever maps a file must not find it shorter later:
indexes are only ever replaced as a whole (``utils/atomic.py``), and an open one stays what it was.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from utils.errors import DatasetError, first_line

FORMAT = 2  # raise it whenever the layout or the meaning of a column changes; 1 was an .npz file
_WORD = b"LABELIDX"
_PREFIX = struct.Struct("<8sIII")
_LONGEST_HEADER = 1 << 14  # bytes; that of a billion images is no longer than 1000
_ALIGNMENT = 64  # bytes, a line of the processor's cache
_COPIED_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class ColumnType:
    """Numbers of a column: their type, and how many make a row."""

    dtype: str
    width: int = 1

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return np.dtype(self.dtype).itemsize * self.width


# N images, L labels, P polygon points, F faults; *starts* have one entry more, which is where the last one ends
COLUMNS = {
    "path_starts": ColumnType("<i8"),  # N + 1, into path_bytes
    "path_bytes": ColumnType("|u1"),  # paths of the images, UTF-8
    "sizes": ColumnType("<i4", 2),  # N, width and height, px; 0, 0 of what cannot be used
    "states": ColumnType("<i8", 4),  # N, size and modification time of the image, then of its label file; -1: no file
    "label_starts": ColumnType("<i8"),  # N + 1, into labels
    "labels": ColumnType("<f4", 5),  # L, class, x, y, width, height
    "lines": ColumnType("<i4"),  # L, line of each label in its file, from 1
    "corner_starts": ColumnType("<i8"),  # L + 1, into points
    "points": ColumnType("<f4", 2),  # P, corners of polygons
    "fault_rows": ColumnType("<i8"),  # F, the image that each is about
    "fault_lines": ColumnType("<i4"),  # F, line of the label file; 0: the image itself
    "fault_starts": ColumnType("<i8"),  # F + 1, into fault_bytes
    "fault_bytes": ColumnType("|u1"),  # texts, UTF-8
}


class IndexFileError(DatasetError):
    """An index file cannot be read, is damaged, or is of another version; it has to be built again."""


class StoredColumns:
    """The columns of an index file, arrays over one piece of memory.

    A fresh process that is sent them maps the file itself; columns that are in no file are sent whole.

    Attributes:
        versions: what read the labels and the images, by name.
        header: the header's bytes; those of two files are equal where their columns are.
    """

    def __init__(self, memory: mmap.mmap | bytes, name: str, path: str | None = None, check_sums: bool = True):
        """Find the columns in a file's content.

        Args:
            memory: the content.
            name: what to call it in errors.
            path: absolute, of the file that is mapped.
            check_sums: of the columns as well, which reads them all.

        Raises:
            IndexFileError: when it is not exactly what the layout says.
        """
        self._memory, self._name, self._path = memory, name, path
        try:
            self.header, rows, sums, self.versions = _read_header(memory)
            places = _places(len(self.header), rows)
            if places["end"] != len(memory):
                raise ValueError(f"{len(memory)} bytes, expected {places['end']}")
            self._arrays = {}
            for column, kind in COLUMNS.items():
                array = np.frombuffer(memory, kind.dtype, rows[column] * kind.width, places[column])
                if check_sums and zlib.crc32(array) != sums[column]:
                    raise ValueError(f"column {column} has another checksum")
                self._arrays[column] = array.reshape(-1, kind.width) if kind.width > 1 else array
        except (ValueError, LookupError, TypeError, AttributeError, struct.error, RecursionError) as error:
            raise IndexFileError(f"{name}: damaged label index ({first_line(error)})") from error

    def __getitem__(self, column: str) -> np.ndarray:
        return self._arrays[column]

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None:
            return StoredColumns, (self._memory, self._name)
        return _map_same, (self._path, self.header)


def map_columns(path: str | Path) -> StoredColumns:
    """Map an index file, read-only.

    Raises:
        IndexFileError: when there is no such file, or it is damaged.
    """
    file = Path(path).absolute()
    return StoredColumns(_map(file, str(path)), str(path), str(file))


def _map_same(path: str, header: bytes) -> StoredColumns:
    """Map a file that another process has found sound; what this one does not need stays unread."""
    columns = StoredColumns(_map(Path(path), path), path, path, check_sums=False)
    if columns.header != header:
        raise IndexFileError(f"{path}: another run found changed files and replaced the label index; start again")
    return columns


def _map(file: Path, name: str) -> mmap.mmap:
    if not os.path.isfile(file):  # noqa: PTH113 - a path beyond all limits is none; opening a pipe would wait for ever
        raise IndexFileError(f"{name}: no label index there")
    try:
        with file.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise IndexFileError(f"{name}: the label index cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise IndexFileError(f"{name}: damaged label index (it is empty)") from error


def _read_header(memory: mmap.mmap | bytes) -> tuple[bytes, dict[str, int], dict[str, int], dict[str, int]]:
    """The header's bytes, and in it the rows and sums of the columns, and the versions."""
    word, file_format, length, header_sum = _PREFIX.unpack_from(memory)
    if word != _WORD:
        raise ValueError("it is no label index")
    if file_format != FORMAT:
        raise ValueError(f"format {file_format}, expected {FORMAT}")
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    header = bytes(memory[_PREFIX.size : _PREFIX.size + length])
    if zlib.crc32(header) != header_sum:
        raise ValueError("the header has another checksum")
    content = json.loads(header)
    rows = {name: _whole(content["columns"][name][0]) for name in COLUMNS}
    sums = {name: _whole(content["columns"][name][1]) for name in COLUMNS}
    return header, rows, sums, {str(name): _whole(number) for name, number in content["versions"].items()}


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("the header has something else where a number belongs")
    return value


def _places(header_length: int, rows: Mapping[str, int]) -> dict[str, int]:
    """Where each column begins, and under ``end`` where the file ends."""
    places, position = {}, _PREFIX.size + header_length
    for name, kind in COLUMNS.items():
        position += -position % _ALIGNMENT
        places[name] = position
        position += rows[name] * kind.row_bytes
    return {**places, "end": position}


class ColumnWriter:
    """Collects columns that grow at the same time, and joins them to one file when all is there.

    Use it in a ``with`` block; each column grows in a stream of its own until then.

    Args:
        scratch: makes a stream that can be written and read again, such as :func:`tempfile.TemporaryFile`.
    """

    def __init__(self, scratch: Callable[[], IO[bytes]]):
        self._scratch = scratch
        self._rows, self._sums = dict.fromkeys(COLUMNS, 0), dict.fromkeys(COLUMNS, 0)
        self._streams: dict[str, IO[bytes]] = {}
        self._open = ExitStack()

    def __enter__(self) -> ColumnWriter:
        with self._open:  # closes what is open already when one cannot be opened
            self._streams = {name: self._open.enter_context(self._scratch()) for name in COLUMNS}
            self._open = self._open.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def append(self, name: str, values: Any) -> None:
        """Add rows to a column.

        Args:
            name: one of :data:`COLUMNS`.
            values: (n,) or (n, width) numbers.
        """
        kind = COLUMNS[name]
        data = np.ascontiguousarray(values, kind.dtype).tobytes()
        self._streams[name].write(data)
        self._rows[name] += len(data) // kind.row_bytes
        self._sums[name] = zlib.crc32(data, self._sums[name])

    def save(self, stream: IO[bytes], versions: Mapping[str, int]) -> bytes:
        """Write the file; returns its header, as :attr:`StoredColumns.header`.

        Args:
            stream: where to.
            versions: what read the labels and the images, by name.
        """
        columns = {name: (self._rows[name], self._sums[name]) for name in COLUMNS}
        header = json.dumps({"versions": dict(versions), "columns": columns}).encode()
        stream.write(_PREFIX.pack(_WORD, FORMAT, len(header), zlib.crc32(header)) + header)
        position = _PREFIX.size + len(header)
        for name, place in _places(len(header), self._rows).items():
            if name == "end":
                break
            stream.write(bytes(place - position))
            position = place + self._rows[name] * COLUMNS[name].row_bytes
            source = self._streams[name]
            source.seek(0)
            while part := source.read(_COPIED_AT_ONCE):
                stream.write(part)
        return header
