"""Which files a source means: a path, a folder, a pattern, a list, an address on the network."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from utils.errors import DatasetError
from utils.log import LOGGER

IMG_FORMATS = ("bmp", "dng", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp", "pfm")
VID_FORMATS = ("asf", "avi", "gif", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ts", "wmv")

_WEB = ("http://", "https://")
_STREAMS = ("rtsp://", "rtsps://", "rtmp://", "tcp://", "udp://", "srt://")


def is_url(source: str) -> bool:
    """Whether a source is an address on the network."""
    return source.lower().startswith(_WEB + _STREAMS)


def is_web_file(source: str) -> bool:
    """Whether a source is one picture or video on a web server, by its scheme and suffix."""
    return source.lower().startswith(_WEB) and is_known(source)


def file_name(path: str) -> str:
    """The last part of a path or of an address, without its query."""
    return Path(unquote(urlsplit(path).path) if is_url(path) else path).name


def suffix_of(path: str) -> str:
    """The suffix of a path or address, in small letters and without its dot."""
    return Path(file_name(path)).suffix[1:].lower()


def is_known(path: str) -> bool:
    """Whether a suffix is that of a picture or video."""
    return suffix_of(path) in IMG_FORMATS + VID_FORMATS


def read_lines(file: Path, what: str) -> list[str]:
    """The lines of a text file that are not empty, without the space around them.

    Args:
        file: in UTF-8.
        what: it should hold, for the error.

    Raises:
        DatasetError: when it cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: cannot be read as a list of {what} ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def _read_list(file: Path) -> list[str]:
    """Paths in a text file, one a line; those that are not below the current folder are tried beside the list."""
    found = []
    for line in read_lines(file, "paths"):
        if is_url(line) and not is_web_file(line):
            raise DatasetError(f"{file}: {line} is a stream; list streams in a file that ends in .streams")
        beside = file.parent / line
        found.append(str(beside) if not is_url(line) and not Path(line).exists() and beside.exists() else line)
    return found


def _expand(source: str, recursive: bool) -> list[str]:
    """Files meant by one path: itself, a folder's, or a pattern's."""
    path = Path(source).expanduser()
    if path.is_dir():
        entries = path.rglob("*") if recursive else path.iterdir()
        return sorted(str(entry) for entry in entries if entry.is_file() and is_known(str(entry)))
    if path.exists():  # before patterns: a name may have brackets
        return [str(path)]
    if glob.has_magic(source):
        found = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        return sorted(filter(is_known, found))
    raise DatasetError(f"{source}: no such file or folder")


def find_files(path: str | Path | Sequence[str | Path], recursive: bool = False) -> list[str]:
    """Absolute paths of the pictures and videos behind a source; pictures first, then videos.

    Args:
        path: a file, a folder, a pattern, a ``.txt`` list of paths, the address of a picture or video on a web server,
            or several of these.
        recursive: take the files in the folders below a folder too.

    Raises:
        DatasetError: when one does not exist, or there is nothing to look at. A missing file inside a list is only
            found out when its turn comes.
    """
    entries = [str(entry) for entry in path] if isinstance(path, (list, tuple)) else [str(path)]
    files: list[str] = []
    for entry in entries:
        if is_web_file(entry):
            files.append(entry)
        elif suffix_of(entry) == "txt":
            files += _read_list(Path(entry))
        elif len(entries) > 1 and not Path(entry).exists() and not glob.has_magic(entry):
            files.append(entry)
        else:
            files += _expand(entry, recursive)
    files = [file if is_url(file) else os.path.abspath(file) for file in files]  # noqa: PTH100 - keeps names of links
    known = [file for file in files if is_known(file)]
    if not known:
        formats = f"pictures: {' '.join(IMG_FORMATS)}; videos: {' '.join(VID_FORMATS)}"
        raise DatasetError(f"{', '.join(entries)}: no pictures or videos there ({formats})")
    for file in files:
        if not is_known(file):
            LOGGER.warning("%s: neither a picture nor a video by its suffix, left out", file)
    return [file for file in known if suffix_of(file) in IMG_FORMATS] + [
        file for file in known if suffix_of(file) in VID_FORMATS
    ]
