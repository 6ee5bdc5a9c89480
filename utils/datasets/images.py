"""Which files are images, where their labels are, and what an image's header says without decoding it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from utils.datasets.sources import IMG_FORMATS
from utils.errors import DatasetError
from utils.image_io import JPEG_TAIL, UNREADABLE, ends_as_jpeg, read_image, refuse_lying_size

MIN_SIDE = 10  # pixels
_ORIENTATION = 0x0112  # EXIF tag
_TURNED = (5, 6, 7, 8)  # its values that swap width and height


def list_images(source: str | Path | Sequence[str | Path]) -> list[str]:
    """Every image of a split, sorted within each source.

    Args:
        source: a folder (searched at every depth), a ``.txt`` list of images, or a list of these. Lines of a list that
            start with ``./`` are beside it; other relative lines are tried from the current folder, then beside it.

    Raises:
        DatasetError: when a source does not exist or holds no image at all.
    """
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    found: list[str] = []
    for entry in map(Path, sources):
        if entry.is_dir():
            found += sorted(_walk(entry))
        elif entry.is_file() and entry.suffix.lower() == ".txt":
            found += _read_list(entry)
        else:
            raise DatasetError(f"{entry}: expected a folder of images or a .txt list of them, found neither")
    if not found:
        kinds = " ".join(IMG_FORMATS)
        raise DatasetError(f"{', '.join(map(str, sources))}: no image found (suffixes looked for: {kinds})")
    return found


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in IMG_FORMATS


def _walk(folder: Path) -> Iterable[str]:
    seen = set()  # linked folders are followed, but not in circles
    for parent, children, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            children.clear()
            continue
        seen.add(real)
        children[:] = [child for child in children if not child.startswith(".")]
        yield from (str(Path(parent, name)) for name in files if _is_image(name) and not name.startswith("."))


def _read_list(file: Path) -> list[str]:
    lines = (line.strip() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines())
    return [_listed_path(line, file.parent) for line in lines if _is_image(line)]


def _listed_path(line: str, folder: Path) -> str:
    if line.startswith(("./", ".\\")):
        return str(folder / line[2:])
    path = Path(line)
    return str(path if path.is_absolute() or path.exists() else folder / path)


def img2label_paths(img_paths: Iterable[str | Path]) -> list[str]:
    """Label file of each image: the last ``/images/`` of the path becomes ``/labels/``, the suffix ``.txt``."""
    return [str(_label_path(Path(path))) for path in img_paths]


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
    return (height, width) if _orientation(img) in _TURNED else (width, height)


def _orientation(image: Image.Image) -> int:
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
                turned = _orientation(image) != 1
    except UNREADABLE:
        return None
    return None if turned else size  # decoders disagree on turned PNG, TIFF and WebP files


def _tail_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(max(path.stat().st_size - JPEG_TAIL, 0))
        return stream.read()
