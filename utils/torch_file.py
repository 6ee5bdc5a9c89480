"""A PyTorch file opened to look at: its object description as data, its tensors read one by one on demand.

Both forms are read: the zip archive that PyTorch has written since 1.6, and the plain stream of before. What a file
declares is compared with what is there before anything is read or allocated, so a file can make no one wait, and fill
no memory.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, Self

import torch

from utils.errors import CheckpointError, first_line, printable
from utils.pickle_reader import PickleReader, UnknownNameError, UnreadableError
from utils.torch_records import MODULES, Storage, TensorRecord, as_plain, known_names, storage_of

_ZIP_START = b"PK\x03\x04"
_STREAM_START = 0x1950A86A20F9469CFC6C  # the number that PyTorch's older form begins with
_LONGEST_DESCRIPTION = 64 << 20  # bytes; that of the largest YOLOv5 with its average is below 1 MiB
_MOST_PARTS = 100_000  # of an archive
_DESCRIPTION = "data.pkl"
_ENCRYPTED = 1  # bit of a zip entry's flags
_DAMAGED = (ValueError, LookupError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, RuntimeError)


class _Form(Protocol):
    """How the parts of a file are kept."""

    content: Any

    def check_sums(self) -> None: ...

    def require(self, storage: Storage) -> object: ...

    def values(self, storage: Storage) -> bytearray: ...


class TorchFile:
    """A PyTorch file, open while its ``with`` block runs.

    Args:
        path: the file.
        modules: classes, as (module, name), whose instances it may hold beside PyTorch's own layers.

    Attributes:
        content: what the file holds: dicts, lists, texts, numbers, and the records of :mod:`utils.torch_records`.

    Raises:
        CheckpointError: when it is missing, damaged, no PyTorch file, or asks for Python objects other than these.
    """

    def __init__(self, path: str | Path, modules: Iterable[tuple[str, str]] = ()):
        self.path = Path(path)
        self._stream: IO[bytes] | None = None
        try:
            self._stream = self.path.open("rb")
            self.is_archive = self._stream.read(len(_ZIP_START)) == _ZIP_START
            self._stream.seek(0)
            form = _Archive if self.is_archive else _Stream
            self._tensors: list[TensorRecord] = []
            self._form: _Form = form(self._stream, known_names(modules, self._tensors))
        except OSError as error:
            self.close()
            raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
        except UnknownNameError as error:
            self.close()
            reason = _refusal(error.module, error.name) if modules else _refusal_of_modules(error, path)
            raise CheckpointError(f"{path}: {reason}") from error
        except _DAMAGED as error:
            self.close()
            raise self._damaged(error) from error
        self.content: Any = self._form.content
        self._flat: dict[Storage, torch.Tensor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._stream is not None:
            self._stream.close()

    def check_all(self) -> None:
        """Compare all that the file declares with what is there, for readers that trust it.

        Raises:
            CheckpointError: when a part is damaged or missing, a tensor has more values than are stored, or values
                are nested deeper than in any checkpoint.
        """
        try:
            as_plain(self.content)
            for record in self._tensors:
                _require_own_values(record)
                self._form.require(record.storage)
            self._form.check_sums()
        except (OSError, *_DAMAGED) as error:
            raise self._damaged(error) from error

    def tensor(self, record: TensorRecord) -> torch.Tensor:
        """Read a tensor, to the CPU; tensors that share their values in the file share them here.

        Raises:
            CheckpointError: when its values are not there, or it claims more values than are stored.
        """
        storage, dtype = record.storage, record.dtype
        try:
            _require_own_values(record)
            if storage not in self._flat:
                content = self._form.values(storage)
                self._flat[storage] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        except (OSError, *_DAMAGED) as error:
            raise self._damaged(error) from error
        return self._flat[storage].as_strided(record.size, record.stride, record.offset)

    def _damaged(self, error: BaseException) -> CheckpointError:
        return CheckpointError(f"{self.path}: damaged, or no PyTorch file ({printable(first_line(error))})")


def _require_own_values(record: TensorRecord) -> None:
    """Refuse a tensor that shows few values many times; YOLOv5 has such, but only where nothing reads them."""
    if record.values > record.storage.count:
        raise UnreadableError(f"a tensor of size {record.size} has only {record.storage.count} values")


class _Archive:
    """The form since PyTorch 1.6: an uncompressed zip archive with one folder."""

    def __init__(self, stream: IO[bytes], known: Any):
        self._archive = zipfile.ZipFile(stream)
        size = stream.seek(0, os.SEEK_END)
        self._parts = _checked_parts(self._archive.infolist(), size)
        found = [name for name in self._parts if name.count("/") == 1 and name.endswith(f"/{_DESCRIPTION}")]
        if len(found) != 1:
            raise UnreadableError(_other_archive(self._parts))
        self._folder = PurePosixPath(found[0]).parent
        if any(name.startswith(f"{self._folder}/code/") for name in self._parts):
            raise UnreadableError("a TorchScript model, which is a program; --weights takes the .pt it was made from")
        order = self._parts.get(f"{self._folder}/byteorder")
        if order is not None and self._archive.read(order) != b"little":
            raise UnreadableError("written on a machine with another byte order")
        if self._parts[found[0]].file_size > _LONGEST_DESCRIPTION:
            raise UnreadableError(f"its {_DESCRIPTION} is larger than {_LONGEST_DESCRIPTION:,} bytes")
        description = io.BytesIO(self._archive.read(found[0]))
        self.content = PickleReader(description, known, storage_of).read()

    def check_sums(self) -> None:
        """Compare every part with its checksum."""
        damaged = self._archive.testzip()
        if damaged is not None:
            raise UnreadableError(f"the checksum of its part {damaged} is wrong")

    def require(self, storage: Storage) -> zipfile.ZipInfo:
        """The part with the values of a storage, which must have the size that it should."""
        wanted = storage.count * storage.dtype.itemsize
        part = self._parts.get(f"{self._folder}/data/{storage.key}")
        if part is None or part.file_size != wanted:
            found = "is missing" if part is None else f"has {part.file_size:,}"
            raise UnreadableError(f"part data/{storage.key} should have {wanted:,} bytes and {found}")
        return part

    def values(self, storage: Storage) -> bytearray:
        """The bytes of a storage."""
        return bytearray(self._archive.read(self.require(storage)))


def _checked_parts(entries: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries of an archive by name, once it is certain that they are what PyTorch writes."""
    if len(entries) > _MOST_PARTS:
        raise UnreadableError(f"has {len(entries):,} parts")
    parts = {entry.filename: entry for entry in entries}
    if len(parts) != len(entries):
        raise UnreadableError("has several parts of one name")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise UnreadableError(f"its part {entry.filename} is compressed, which PyTorch never does")
        if entry.flag_bits & _ENCRYPTED:
            raise UnreadableError(f"its part {entry.filename} is encrypted")
    declared = sum(entry.file_size for entry in entries)
    if declared > size:
        raise UnreadableError(f"its parts declare {declared:,} bytes, the file has {size:,}")
    return parts


def _other_archive(parts: Iterable[str]) -> str:
    inside = next((name for name in parts if name.endswith((".pt", ".pth", ".zip"))), None)
    if inside is not None:
        return f"an archive around {inside}: unpack it first"
    return f"an archive without a {_DESCRIPTION} in its one folder"


class _Stream:
    """The form before PyTorch 1.6: a few pickles, then the values of the tensors."""

    def __init__(self, stream: IO[bytes], known: Any):
        self._stream = stream
        self._storages: dict[str, Storage] = {}
        head = io.BytesIO(stream.read(_LONGEST_DESCRIPTION))
        try:
            begins = PickleReader(head, {}).read()
        except (UnreadableError, UnknownNameError):
            begins = None
        if begins != _STREAM_START:
            raise UnreadableError("it begins like neither of the two forms")
        PickleReader(head, {}).read()  # the version of the form; there is one
        system = PickleReader(head, {}).read()
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise UnreadableError("written on a machine with another byte order")
        self.content = PickleReader(head, known, self._refer).read()
        self._places = self._find_values(PickleReader(head, {}).read(), head.tell())

    def _refer(self, reference: Any) -> Any:
        if type(reference) is tuple and len(reference) == 4 and reference[0] == "module":
            return reference[1]  # the class; its source code, which follows, is of no interest
        storage = storage_of(reference)
        if self._storages.setdefault(storage.key, storage) != storage:
            raise UnreadableError(f"the storage {storage.key} has two types")
        return storage

    def _find_values(self, keys: Any, start: int) -> dict[str, int]:
        """Where the bytes of each storage begin: behind a count of 8 bytes, one after the other."""
        if type(keys) is not list or not all(isinstance(key, str) and key in self._storages for key in keys):
            raise UnreadableError("the list of its storages is damaged")
        size, places = self._stream.seek(0, os.SEEK_END), {}
        for key in keys:
            self._stream.seek(start)
            storage = self._storages[key]
            count = int.from_bytes(self._stream.read(8), "little")
            places[key] = start + 8
            start = places[key] + count * storage.dtype.itemsize
            if count != storage.count or start > size:
                raise UnreadableError(f"the storage {key} should have {storage.count:,} values and is cut or changed")
        return places

    def check_sums(self) -> None:
        """This form has none."""

    def require(self, storage: Storage) -> int:
        """Where the values of a storage begin; that they are all there has been seen."""
        if storage.key not in self._places:
            raise UnreadableError(f"the values of storage {storage.key} are missing")
        return self._places[storage.key]

    def values(self, storage: Storage) -> bytearray:
        """The bytes of a storage."""
        self._stream.seek(self.require(storage))
        content = bytearray(storage.count * storage.dtype.itemsize)
        if self._stream.readinto(content) != len(content):
            raise UnreadableError(f"the values of storage {storage.key} are cut off")
        return content


def _refusal_of_modules(error: UnknownNameError, path: str | Path) -> str:
    """The same where only plain data is wanted: YOLOv5's own modules then are no reason for distrust."""
    if error.module.split(".")[0] == "models":
        return f"holds whole modules, as YOLOv5 saves them; run python -m tools.checkpoint convert {path} first"
    return _refusal(error.module, error.name)


def _refusal(module: str, name: str) -> str:
    """Why a file is not read that asks for an object, and what to do."""
    full = printable(f"{module}.{name}".replace("__builtin__", "builtins"))  # its name where Python 2 can read it
    if module.split(".")[0] == "ultralytics":
        return f"asks for {full}: a file of the ultralytics package, not of YOLOv5, whose models differ"
    if module.split(".")[0] in ("models", "utils"):
        return (
            f"asks for {full}, which this project does not have, so its network cannot be built here; of YOLOv5's "
            "files, those of detection models with its own layers can be read"
        )
    if module.startswith(f"{MODULES}."):
        return f"asks for {full}, which no detection model of YOLOv5 is made of, so its network cannot be built here"
    if name == "getattr":
        full += " (as YOLOv5's networks with folded norms do: then use the file from before)"
    return (
        f"asks for the Python object {full}, which no checkpoint of a detector needs; such a file could run code, so "
        "nothing of it was used: get the weights from somebody you trust"
    )
