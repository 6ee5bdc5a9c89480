"""Which files are images, where their labels are, and what an image's header says without decoding it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image

from utils.annotations.coco_file import image_paths_of, read_coco_file
from utils.annotations.json_file import is_json
from utils.annotations.report import Report
from utils.datasets.sources import IMG_FORMATS
from utils.errors import DatasetError
from utils.image_io import JPEG_TAIL, UNREADABLE, ends_as_jpeg, read_image, refuse_lying_size
from utils.paths import special_kind

MIN_SIDE = 10  # pixels
CHECK_VERSION = 1  # raise it when check_image finds another size, or another fault, in the same file
_ORIENTATION = 0x0112  # EXIF tag
_TURNED = (5, 6, 7, 8)  # its values that swap width and height


def list_images(source: str | Path | Sequence[str | Path]) -> list[str]:
    """Every image of a split as a list; see :func:`iter_images`."""
    return list(iter_images(source))


def iter_images(
    source: str | Path | Sequence[str | Path], images_of_json: Callable[[Path], list[str]] | None = None
) -> Iterator[str]:
    """Every image of a split, sorted within each source; of a folder no more than one level is in memory at a time.

    Args:
        source: a folder (searched at every depth), a ``.txt`` list of images, COCO's ``.json`` of instances, or a list
            of these. Lines of a list that start with ``./`` are beside it; other relative lines are tried from the
            current folder, then beside it.
        images_of_json: gives the images of a JSON file that has been read already; None reads it.

    Raises:
        DatasetError: when a source does not exist, or at the end, when there was no image at all.
    """
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    found = False
    for entry in map(Path, sources):
        if entry.is_dir():
            images = _walk(entry)
        elif entry.is_file() and entry.suffix.lower() == ".txt":
            images = _read_list(entry)
        elif entry.is_file() and is_json(entry):
            images = images_of_json(entry) if images_of_json else image_paths_of(read_coco_file(entry, Report()))
        else:
            raise DatasetError(f"{entry}: expected a folder of images, a .txt list or COCO's .json, found neither")
        for image in images:
            found = True
            yield image
    if not found:
        kinds = " ".join(IMG_FORMATS)
        raise DatasetError(f"{', '.join(map(str, sources))}: no image found (suffixes looked for: {kinds})")


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its suffix; no file has a zero byte in its name."""
    return name.rpartition(".")[2].lower() in IMG_FORMATS and "\0" not in name


def _walk(folder: Path) -> Iterator[str]:
    """Images below a folder, sorted by their whole path."""
    seen: set[str] = set()
    levels = [_images_and_folders("" if folder == Path() else str(folder), seen)]
    while levels:
        path = next(levels[-1], None)
        if path is None:
            levels.pop()
        elif path.endswith(os.sep):
            levels.append(_images_and_folders(path[: -len(os.sep)], seen))
        else:
            yield path


def _images_and_folders(folder: str, seen: set[str]) -> Iterator[str]:
    """Paths right below a folder, those of folders with a separator at the end, which puts all in their order."""
    real = os.path.realpath(folder)
    if real in seen:
        return  # linked folders are followed, but not in circles
    seen.add(real)
    names = []
    with contextlib.suppress(OSError), os.scandir(folder or os.curdir) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                names.append(entry.name + os.sep)
            elif is_image(entry.name):
                names.append(entry.name)
    names.sort()
    yield from (os.path.join(folder, name) for name in names)  # noqa: PTH118 - a Path each would take a second in 200,000


def _read_list(file: Path) -> Iterator[str]:
    lines = (line.strip() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines())
    return (_listed_path(line, file.parent) for line in lines if is_image(line))


def _listed_path(line: str, folder: Path) -> str:
    if line.startswith(("./", ".\\")):
        return str(folder / line[2:])
    path = Path(line)
    return str(path if path.is_absolute() or path.exists() else folder / path)


def img2label_paths(img_paths: Iterable[str | Path]) -> list[str]:
    """Label file of each image: the last ``/images/`` of the path becomes ``/labels/``, the suffix ``.txt``."""
    return [label_path(str(path)) for path in img_paths]


def label_path(image: str) -> str:
    """Label file of one image; see :func:`img2label_paths`."""
    folder, name = os.path.split(image)
    stem, _, suffix = name.rpartition(".")
    if not stem.strip(".") or not suffix:  # names that pathlib must judge
        return str(_label_path(Path(image)))
    return _label_folder(folder) + stem + ".txt"


@lru_cache(maxsize=1024)
def _label_folder(folder: str) -> str:
    """The folder of the labels of a folder of images, with a separator at the end; neighbours ask for the same one."""
    return str(_label_path(Path(folder) / "_")).removesuffix("_.txt")


def _label_path(image: Path) -> Path:
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):  # the file's own name does not count
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def exif_size(img: Image.Image) -> tuple[int, int]:
    """Width and height of an image opened with Pillow, as they are once its EXIF orientation is applied."""
    width, height = img.size
    return (height, width) if exif_orientation(img) in _TURNED else (width, height)


def exif_orientation(image: Image.Image) -> int:
    """EXIF orientation of an image opened with Pillow: 1 upright, 2 to 8 turned or mirrored."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except UNREADABLE:
        return 1  # damaged metadata turns nothing


def check_image(path: str | Path) -> tuple[int, int]:
    """Width and height of an image as training will see it, without decoding pixels where the header is enough.

    Raises:
        DatasetError: when the file is missing, no image, cut off, or has a side below 10 px.
    """
    size = _header_size(Path(path))
    if size is None:
        height, width = read_image(path).shape[:2]
        size = (width, height)
    if min(size) < MIN_SIDE:
        raise DatasetError(f"{path}: is {size[0]}x{size[1]}; images need {MIN_SIDE} px on each side")
    return size


def _header_size(path: Path) -> tuple[int, int] | None:
    """Size by the header; None where only decoding can tell."""
    if special_kind(path):
        return None
    try:
        with Image.open(path) as image:
            refuse_lying_size(str(path), image.size, path.stat().st_size)
            if image.format in ("JPEG", "MPO"):
                return exif_size(image) if ends_as_jpeg(_tail_of(path)) else None
            size = image.size
            if image.format == "PNG":
                turned = "exif" in image.info  # asking for more would decode the pixels
                image.verify()  # checksums: cheap, and the only sign of a damaged one
            else:
                turned = exif_orientation(image) != 1
    except UNREADABLE:
        return None
    return None if turned else size  # decoders disagree on turned PNG, TIFF and WebP files


def _tail_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(max(path.stat().st_size - JPEG_TAIL, 0))
        return stream.read()
