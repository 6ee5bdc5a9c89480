"""Keeping the label index of a split for the next start: where it lies, whether it still holds, and building it.

The file is ``<labels folder or list>.label-index``; ``index_file.py`` says what is in it. It holds for exactly the
images, sizes, modification times and rules of reading that it was built from, and is otherwise built again, as is a
damaged one; a line says so. In a folder that cannot be written the index is in this process's memory alone. The
``.cache`` files of YOLOv5 are neither read nor written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.atomic import replacing
from utils.datasets.columns import PackedTexts
from utils.datasets.images import check_image, label_path
from utils.datasets.index_file import IndexFileError
from utils.datasets.label_index import NO_FILE, VERSIONS, ImageRecord, IndexWriter, LabelIndex, open_index
from utils.datasets.labels import read_label_file
from utils.errors import DatasetError, first_line
from utils.log import LOGGER
from utils.threads import READERS
from utils.wording import counted

SUFFIX = ".label-index"
_LARGEST = 2**63 - 1
_BLOCK = 4096  # images whose records are in memory at a time while an index is built


def index_path(source: str | Path) -> Path:
    """Where the index of a split lies: beside the labels of its folder, or beside its list."""
    base = Path(source).absolute()  # the current folder has a name too
    if base.is_dir():
        beside_labels = Path(label_path(str(base / "any.jpg"))).parent
        base = beside_labels if beside_labels.is_dir() else base
    return base.parent / f"{base.stem if base.suffix == '.txt' else base.name}{SUFFIX}"


def scan_images(
    image_files: Sequence[str],
    index_file: Path | None,
    description: str = "",
    quiet: bool = False,
    *,
    read: Callable[[str], ImageRecord] | None = None,
) -> LabelIndex:
    """Check every image and read every label file, or take the results from a valid index.

    Args:
        image_files: paths of the images.
        index_file: where the results are kept between starts; None keeps them in memory.
        description: text in front of the progress bar.
        quiet: show no bar, and say nothing about the index.
        read: what finds out about one image by its path; :func:`read_record` when omitted.

    Returns:
        One record per image, in order; those of a file are mapped, and shared with every process that maps it.
    """
    files = image_files if isinstance(image_files, PackedTexts) else PackedTexts(image_files)
    index = _valid_index(index_file, files, quiet) if index_file else None
    if index is not None:
        return index
    fill = partial(_scan, files, read or read_record, f"{description}scanning", quiet)
    if index_file:
        try:
            return _build_file(index_file, fill, quiet)
        except OSError as error:  # a folder that cannot be written, or a full disk
            _say_not_kept(index_file, error, quiet)
    with IndexWriter(BytesIO) as writer:
        fill(writer)
        return writer.in_memory()


def read_record(image_file: str) -> ImageRecord:
    """Check an image and read its label file."""
    label_file = label_path(image_file)
    states = (*file_state(image_file), *file_state(label_file))  # first: what changes from now on is seen next time
    label = read_label_file(label_file)
    try:
        return ImageRecord(check_image(image_file), label, states=states)
    except DatasetError as error:
        return ImageRecord(None, label, str(error), states)


def file_state(path: str) -> tuple[int, int]:
    """Size in bytes and modification time in ns of a file; :data:`NO_FILE` when it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path takes twice as long, and there may be a million
    except (OSError, ValueError):  # ValueError: no file can have this name
        return NO_FILE
    return status.st_size, status.st_mtime_ns & _LARGEST  # a file from the year 2300 has more than 64 bits


def _valid_index(file: Path, image_files: PackedTexts, quiet: bool) -> LabelIndex | None:
    """The stored index, or None when there is none for exactly these files."""
    if not os.path.isfile(file):  # noqa: PTH113 - Path.is_file fails in a folder that may not be looked into
        return None
    try:
        index = open_index(file)
    except IndexFileError as error:
        if not quiet:
            LOGGER.warning(f"{error}; it is built again")
        return None
    change = _change(index, image_files)
    if change and not quiet:
        LOGGER.info(f"{file}: the label index is built again: {change}")
    return None if change else index


def _change(index: LabelIndex, image_files: PackedTexts) -> str:
    """What is no longer as it was when an index was built; "" when it still holds."""
    if index.versions != VERSIONS:
        return "another version of this program reads labels or images differently"
    if not index.image_files.same(image_files):
        return f"the list of images is another one ({len(index)} then, {len(image_files)} now)"
    changed = np.zeros((len(index), 2), np.bool_)  # image, label file
    for start in range(0, len(index), _BLOCK):
        block = slice(start, start + _BLOCK)
        now = [(*file_state(file), *file_state(label_path(file))) for file in image_files[block]]
        changed[block] = (index.states[block] != np.array(now, np.int64)).reshape(-1, 2, 2).any(axis=2)
    images, labels = changed.sum(axis=0).tolist()
    found = [counted(count, kind) for count, kind in ((images, "image"), (labels, "label file")) if count]
    return f"{' and '.join(found)} changed, came or went" if found else ""


def _scan(
    image_files: PackedTexts, read: Callable[[str], ImageRecord], description: str, quiet: bool, writer: IndexWriter
) -> None:
    """Put the records of all images into a writer, block by block."""
    bar = tqdm(total=len(image_files), desc=description, leave=False, disable=quiet or None)
    with ThreadPool(READERS) as pool, bar:
        for start in range(0, len(image_files), _BLOCK):
            block = image_files[start : start + _BLOCK]
            records = []
            for record in pool.imap(read, block, chunksize=16):
                records.append(record)
                bar.update()
            writer.append(block, records)


def _build_file(file: Path, fill: Callable[[IndexWriter], None], quiet: bool) -> LabelIndex:
    """Build an index beside its place and put it there in one step, so that a reader never sees half of one.

    Raises:
        OSError: when its folder cannot be written.
    """
    with IndexWriter(partial(tempfile.TemporaryFile, dir=file.parent)) as writer:
        fill(writer)
        try:
            with replacing(file, binary=True) as stream:
                header = writer.save(stream)
            index = open_index(file)
            if index.header == header:
                return index
            reason = IndexFileError("another process keeps one of other files there")
        except (OSError, IndexFileError) as error:
            reason = error
        _say_not_kept(file, reason, quiet)
        return writer.in_memory()


def _say_not_kept(file: Path, error: Exception, quiet: bool) -> None:
    if not quiet:
        reason = getattr(error, "strerror", None) or first_line(error)
        LOGGER.info(
            f"{file}: the label index is not kept ({reason}): this run has it in memory, the next reads all again"
        )
