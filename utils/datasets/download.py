"""The entry ``download:`` of a data set YAML: an archive with its address, size and checksum, fetched when asked to.

YOLOv5 takes an address alone, a shell command or Python code there, and runs the latter two as soon as images are
missing. Here none of it ever happens by itself, programs are not run at all, and what is fetched is known beforehand::

    download: {url: https://example.org/cells.zip, sha256: 5f70bf18..., bytes: 7340032}
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from utils.datasets.archives import unpack
from utils.errors import DatasetError, first_line
from utils.log import LOGGER

_FORM = "`download: {url: https://..., sha256: <64 hexadecimal digits>, bytes: <size of the archive>}`"
_TIMEOUT = 20.0  # seconds without an answer
_READ_AT_ONCE = 1 << 20  # bytes
_LARGEST = 1 << 40  # bytes
_GROWTH, _FREE = 20, 16 << 20  # an archive may unpack to so many times its size, and so many bytes more


@dataclass(frozen=True)
class Download:
    """What a ``download:`` entry names.

    Attributes:
        url: of the archive, http or https.
        sha256: its checksum, in small letters.
        size: its bytes.
    """

    url: str
    sha256: str
    size: int


def read_download(entry: Any, origin: str) -> Download:
    """Read a ``download:`` entry.

    Args:
        entry: its value.
        origin: what messages call the YAML.

    Raises:
        DatasetError: when it is a program, or lacks what makes a download safe.
    """
    if isinstance(entry, str) and not re.match(r"https?://\S+\Z", entry.strip()):
        raise DatasetError(
            f"{origin}: `download:` holds a program, and no program out of a YAML is run here: read it, run it "
            f"yourself if you trust it, or name the archive: {_FORM}"
        )
    if not isinstance(entry, Mapping):
        raise DatasetError(
            f"{origin}: `download:` says neither the size nor the checksum of what is fetched: write {_FORM}"
        )
    url, digest, size = entry.get("url"), entry.get("sha256"), entry.get("bytes")
    if not isinstance(url, str) or not re.match(r"https?://[^\s\x00-\x1f]+\Z", url):
        raise DatasetError(f"{origin}: `download:` needs a `url` that begins with https:// or http://: write {_FORM}")
    if not isinstance(digest, str) or not re.match(r"[0-9a-fA-F]{64}\Z", digest):
        raise DatasetError(f"{origin}: `download:` needs the archive's `sha256`: write {_FORM}")
    if type(size) is not int or not 0 < size <= _LARGEST:
        raise DatasetError(f"{origin}: `download:` needs the archive's size, `bytes`: write {_FORM}")
    return Download(url, digest.lower(), size)


def fetch_archive(download: Download, folder: Path, find: Callable[[Path], bool]) -> None:
    """Fetch an archive, make sure that it is the one meant, and unpack it as a new folder.

    The folder appears in one step at the end; whatever fails, nothing is left.

    Args:
        download: what to fetch.
        folder: of the data set; not there yet, or empty.
        find: whether a folder holds the data set's images; asked of the archive's top and, where that is a single
            folder, of this one.

    Raises:
        DatasetError: when it cannot be fetched, is another file, no archive that is safe to unpack, or not the set.
        OSError: when the disk is full or the folder cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder}: is there, but not the data set's images: move it away, or correct `path:`")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True) as made:
        archive, unpacked = Path(made, "archive"), Path(made, "unpacked")
        LOGGER.info(f"{download.url}: fetching {download.size:,} bytes into {folder}")
        _fetch(download, archive)
        unpacked.mkdir()
        try:
            count = unpack(archive, unpacked, download.size * _GROWTH + _FREE)
        except DatasetError as error:
            raise DatasetError(f"{download.url}: {error}") from error
        inside = list(unpacked.iterdir())
        tops = [unpacked, *(inside if len(inside) == 1 and inside[0].is_dir() else [])]
        top = next((top for top in tops if find(top)), None)
        if top is None:
            raise DatasetError(f"{download.url}: holds {count:,} files, but not the images that the YAML names")
        if folder.exists():
            folder.rmdir()
        top.rename(folder)
    LOGGER.info(f"{folder}: {count:,} files unpacked")


def _fetch(download: Download, target: Path) -> None:
    digest, count = hashlib.sha256(), 0
    with target.open("wb") as stream:
        for data in _received(download.url):
            count += len(data)
            if count > download.size:
                raise DatasetError(f"{download.url}: is larger than the {download.size:,} bytes of the YAML")
            digest.update(data)
            stream.write(data)
    if count != download.size:
        raise DatasetError(f"{download.url}: has {count:,} bytes, not the YAML's {download.size:,}: cut or changed")
    if digest.hexdigest() != download.sha256:
        raise DatasetError(f"{download.url}: its checksum is {digest.hexdigest()}, not the YAML's; it was changed")


def _received(url: str) -> Iterator[bytes]:
    """What a server sends, part by part."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            while data := answer.read(_READ_AT_ONCE):
                yield data
    except (OSError, ValueError, HTTPException) as error:
        raise DatasetError(f"{url}: cannot be fetched ({first_line(error)})") from error
