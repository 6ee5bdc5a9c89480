"""The label index of a split: what scanning every image header and label file found, kept for the next start.

The file is a plain ``.npz`` of numbers, ``<labels folder or list>.index.npz``. It holds a fingerprint of every path,
size and modification time; where that does not match, or the file is damaged, everything is scanned again. In a
read-only folder nothing is kept, and all else works the same. The ``.cache`` files of YOLOv5 are neither read nor
written.
"""

from __future__ import annotations

import hashlib
import json
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.atomic import replacing
from utils.datasets.images import check_image, img2label_paths
from utils.datasets.labels import LabelFile, read_label_file
from utils.errors import DatasetError, printable
from utils.log import LOGGER

_FORMAT = 1  # raise it whenever the meaning of the stored numbers changes
_DAMAGED = (  # what NumPy raises for files that are none of its own
    *(OSError, ValueError, LookupError, EOFError, TypeError, AttributeError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
_LONGEST_TEXT = 1000  # characters of a fault
_READERS = 8  # threads; most of the time is spent waiting for the disk


@dataclass(frozen=True)
class ImageRecord:
    """What the scan found out about one image.

    Attributes:
        size_wh: width and height in pixels; None when the image cannot be used.
        label: its objects.
        has_label_file: False for a background image without any file.
        fault: why the image cannot be used, or "".
    """

    size_wh: tuple[int, int] | None
    label: LabelFile
    has_label_file: bool
    fault: str = ""


def index_path(source: str | Path) -> Path:
    """Where the index of a split lies: beside the labels of its folder, or beside its list."""
    base = Path(source)
    if base.is_dir():
        beside_labels = Path(img2label_paths([base / "any.jpg"])[0]).parent
        base = beside_labels if beside_labels.is_dir() else base
    return base.with_name(f"{base.stem if base.suffix == '.txt' else base.name}.index.npz")


def scan_images(
    image_files: Sequence[str], index_file: Path | None, description: str = "", quiet: bool = False
) -> list[ImageRecord]:
    """Check every image and read every label file, or take the results from a valid index.

    Args:
        image_files: paths of the images.
        index_file: where the results are kept between starts; None keeps nothing.
        description: text in front of the progress bar.
        quiet: show no bar, and say nothing about the index.

    Returns:
        One record per image, in order.
    """
    label_files = img2label_paths(image_files)
    fingerprint = _fingerprint(image_files, label_files)
    records = _read_index(index_file, fingerprint, quiet) if index_file else None
    if records is not None:
        return records
    with ThreadPool(_READERS) as pool:
        pairs = zip(image_files, label_files, strict=True)
        scanned = pool.imap(_scan_one, pairs, chunksize=16)
        bar = tqdm(scanned, f"{description}scanning", len(image_files), leave=False, disable=quiet or None)
        records = list(bar)
    if index_file:
        _write_index(index_file, fingerprint, records, quiet)
    return records


def _scan_one(files: tuple[str, str]) -> ImageRecord:
    image_file, label_file = files
    label = read_label_file(label_file)
    has_file = Path(label_file).is_file()
    try:
        return ImageRecord(check_image(image_file), label, has_file)
    except DatasetError as error:
        return ImageRecord(None, label, has_file, str(error))


def _fingerprint(image_files: Sequence[str], label_files: Sequence[str]) -> str:
    digest = hashlib.sha256(f"format {_FORMAT}".encode())
    for path in (*image_files, *label_files):
        try:
            status = Path(path).stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"\n{path}\t{state}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _read_index(file: Path, fingerprint: str, quiet: bool) -> list[ImageRecord] | None:
    """The stored records, or None when there are none for exactly these files."""
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:
            if str(stored["fingerprint"]) != fingerprint:
                return None
            return _unpack(_checked({name: stored[name] for name in stored.files}))
    except _DAMAGED as error:
        if not quiet:
            LOGGER.warning(f"{file}: damaged label index is built again ({type(error).__name__})")
        return None


def _pack(records: Sequence[ImageRecord]) -> dict[str, np.ndarray]:
    files = [record.label for record in records]
    polygons = [polygon for file in files for polygon in file.polygons]
    empty_points = np.zeros((0, 2), np.float32)
    texts = json.dumps([[record.fault, *record.label.faults] for record in records]).encode()
    return {
        "sizes": np.array([record.size_wh or (0, 0) for record in records], np.int32).reshape(-1, 2),
        "has_file": np.array([record.has_label_file for record in records], np.bool_),
        "counts": np.array([len(file.labels) for file in files], np.int64),
        "labels": np.concatenate([np.zeros((0, 5), np.float32), *(file.labels for file in files)]),
        "lines": np.concatenate([np.zeros(0, np.int32), *(file.lines for file in files)]),
        "corners": np.array([len(polygon) for polygon in polygons], np.int64),
        "points": np.concatenate([empty_points, *polygons]),
        "texts": np.frombuffer(texts, np.uint8),
    }


def _checked(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns, once it is certain that a scan could have made them.

    Raises:
        ValueError: when it could not.
    """
    labels, points, counts, corners = (stored[name] for name in ("labels", "points", "counts", "corners"))
    sound = labels.shape[1:] == (5,) and labels.dtype == points.dtype == np.float32 and points.shape[1:] == (2,)
    sound = sound and all(column.ndim == 1 and column.dtype == np.int64 for column in (counts, corners))
    sound = sound and stored["sizes"].shape[1:] == (2,) and stored["sizes"].dtype == stored["lines"].dtype == np.int32
    sound = (
        sound and len(labels) == len(stored["lines"]) == len(corners) == counts.sum() and len(points) == corners.sum()
    )
    in_range = all(bool(((part >= 0) & (part <= 1)).all()) for part in (labels[:, 1:], points)) if sound else False
    from_zero = all(bool((column >= 0).all()) for column in (labels[:, 0], counts, corners, stored["sizes"]))
    from_zero = from_zero and bool(((stored["sizes"] > 0).sum(axis=1) != 1).all())  # both sides, or no image
    if not (in_range and from_zero and np.isfinite(labels).all()):
        raise ValueError("columns that no scan makes")
    return stored


def _unpack(stored: dict[str, np.ndarray]) -> list[ImageRecord]:
    counts, corners = stored["counts"], stored["corners"]
    texts = [[printable(text, _LONGEST_TEXT) for text in row] for row in json.loads(stored["texts"].tobytes())]
    if not (len(counts) == len(stored["sizes"]) == len(texts) and counts.sum() == len(stored["labels"])):
        raise ValueError("columns of different lengths")
    ends = np.cumsum(counts)[:-1]
    labels, lines = np.split(stored["labels"], ends), np.split(stored["lines"], ends)
    polygons = np.split(stored["points"], np.cumsum(corners)[:-1]) if len(corners) else []
    records, position = [], 0
    for row, (fault, *faults) in enumerate(texts):
        count = int(counts[row])
        own_polygons = tuple(polygons[position : position + count])
        label = LabelFile(labels[row], own_polygons, lines[row], tuple(faults))
        width, height = stored["sizes"][row].tolist()
        records.append(ImageRecord((width, height) if width else None, label, bool(stored["has_file"][row]), fault))
        position += count
    return records


def _write_index(file: Path, fingerprint: str, records: Sequence[ImageRecord], quiet: bool) -> None:
    """Keep the records; written beside and renamed, so that a reader never sees half an index."""
    try:
        with replacing(file, binary=True) as stream:
            np.savez_compressed(stream, fingerprint=np.array(fingerprint), **_pack(records))
    except OSError as error:
        if not quiet:
            LOGGER.info(f"{file}: the label index is not kept ({error.strerror or error})")
