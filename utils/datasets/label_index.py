"""The label index of a split: what reading every image header and label file found, in columns over the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from utils.datasets.columns import PackedTexts
from utils.datasets.images import CHECK_VERSION, label_path
from utils.datasets.index_file import ColumnWriter, IndexFileError, StoredColumns, map_columns
from utils.datasets.labels import PARSER_VERSION, LabelFile, fault_line

VERSIONS = {"labels": PARSER_VERSION, "images": CHECK_VERSION}  # of what reads; an index of others is built again
NO_FILE = (-1, -1)


@dataclass(frozen=True)
class ImageRecord:
    """What the scan found out about one image.

    Attributes:
        size_wh: width and height in pixels; None when the image cannot be used.
        label: its objects.
        fault: why the image cannot be used, or "".
        states: size in bytes and modification time in ns of the image, then of its label file, before they were read;
            :data:`NO_FILE` for one that is not there.
    """

    size_wh: tuple[int, int] | None
    label: LabelFile
    fault: str = ""
    states: tuple[int, int, int, int] = NO_FILE + NO_FILE


class LabelIndex(Sequence[ImageRecord]):
    """The records of a split in a few large read-only arrays; ``index[row]`` is one of them.

    Attributes:
        image_files: paths of the images.
        sizes_wh: (N, 2) int32 width and height; 0, 0 where the image cannot be used.
        states: (N, 4) int64, see :class:`ImageRecord`.
        label_starts: (N + 1,) int64 where each image's labels begin in ``labels`` (L, 5) and ``lines`` (L,).
        faults: texts; ``fault_rows`` (F,) are the images they are about, ``fault_lines`` (F,) the lines of their label
            files, 0 for the images themselves.
        versions: of what read them; see :data:`VERSIONS`.
    """

    def __init__(self, columns: StoredColumns):
        self._columns, self.versions = columns, columns.versions
        self.image_files = PackedTexts.of(columns["path_bytes"], columns["path_starts"])
        self.sizes_wh, self.states = columns["sizes"], columns["states"]
        self.label_starts, self.labels, self.lines = columns["label_starts"], columns["labels"], columns["lines"]
        self._corner_starts, self._points = columns["corner_starts"], columns["points"]
        self.fault_rows, self.fault_lines = columns["fault_rows"], columns["fault_lines"]
        self.faults = PackedTexts.of(columns["fault_bytes"], columns["fault_starts"])

    def __reduce__(self) -> tuple[Any, ...]:
        return LabelIndex, (self._columns,)  # which knows how to travel

    @property
    def header(self) -> bytes:
        """Equal in two indexes where everything is."""
        return self._columns.header

    def __len__(self) -> int:
        return len(self.sizes_wh)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[row] for row in range(*place.indices(len(self)))]
        row = range(len(self))[place]
        begin, end = self._labels_at(row)
        first, last = np.searchsorted(self.fault_rows, (row, row + 1)).tolist()
        lines = self.fault_lines[first:last].tolist()
        texts = list(zip(lines, self.faults[first:last], strict=True))
        label = LabelFile(
            self.labels[begin:end],
            tuple(self._outlines(begin, end)),
            self.lines[begin:end],
            tuple(text for line, text in texts if line),
        )
        fault = next((text for line, text in texts if not line), "")
        width, height = self.sizes_wh[row].tolist()
        return ImageRecord((width, height) if width else None, label, fault, tuple(self.states[row].tolist()))

    def image_file(self, row: int) -> str:
        """Path of an image."""
        return self.image_files[row]

    def label_file(self, row: int) -> str:
        """Path of an image's label file, whether there is one or not."""
        return label_path(self.image_files[row])

    def labels_of(self, row: int) -> np.ndarray:
        """Labels (n, 5) of an image, a view."""
        begin, end = self._labels_at(row)
        return self.labels[begin:end]

    def outlines_of(self, row: int) -> list[np.ndarray]:
        """One outline (k, 2) a label, (0, 2) for a plain box; an empty list where all are plain boxes."""
        begin, end = self._labels_at(row)
        if not len(self._points) or self._corner_starts[begin] == self._corner_starts[end]:
            return []
        return self._outlines(begin, end)

    def _labels_at(self, row: int) -> tuple[int, int]:
        return int(self.label_starts[row]), int(self.label_starts[row + 1])

    def _outlines(self, begin: int, end: int) -> list[np.ndarray]:
        corners = self._corner_starts[begin : end + 1].tolist()
        return [self._points[first:last] for first, last in pairwise(corners)]


def open_index(path: str | Path) -> LabelIndex:
    """Map an index file and make sure that everything in it can be used.

    Args:
        path: of the file; it may hold anything.

    Returns:
        The index; its ``versions`` may be others than :data:`VERSIONS`, and its paths any texts.

    Raises:
        IndexFileError: when there is none, or it is damaged, of another format, or says what no scan can have found.
    """
    return _sound(map_columns(path), str(path))


def _sound(columns: StoredColumns, name: str) -> LabelIndex:
    """The index of columns that fit together.

    Raises:
        IndexFileError: when they do not.
    """
    images, labels, faults = (len(columns[column]) for column in ("sizes", "labels", "fault_rows"))
    owners = {"path": images, "label": images, "corner": labels, "fault": faults}
    parts = {"path": "path_bytes", "label": "labels", "corner": "points", "fault": "fault_bytes"}
    sizes, lines, fault_rows = columns["sizes"], columns["lines"], columns["fault_rows"]
    checks = {
        "lengths": len(columns["states"]) == images
        and len(lines) == labels
        and len(columns["fault_lines"]) == faults
        and all(_are_starts(columns[f"{kind}_starts"], owners[kind], len(columns[parts[kind]])) for kind in owners),
        "image sizes": ((sizes > 0).all(axis=1) | (sizes == 0).all(axis=1)).all(),
        "classes": _are_classes(columns["labels"][:, 0]),
        "boxes": _are_shares(columns["labels"][:, 1:]),
        "corners": _are_shares(columns["points"]),
        "lines": (lines > 0).all() and (columns["fault_lines"] >= 0).all(),
        "faults": bool(((fault_rows >= 0) & (fault_rows < images)).all() and (np.diff(fault_rows) >= 0).all()),
    }
    wrong = [what for what, right in checks.items() if not right]
    if wrong:
        raise IndexFileError(f"{name}: damaged label index (impossible {', '.join(wrong)})")
    return LabelIndex(columns)


def _are_starts(starts: np.ndarray, owners: int, parts: int) -> bool:
    fits = len(starts) == owners + 1 and starts[0] == 0 and starts[-1] == parts
    return bool(fits and (starts[1:] >= starts[:-1]).all())


def _are_classes(values: np.ndarray) -> bool:
    """Whether all are whole numbers from 0."""
    with np.errstate(invalid="ignore"):  # some kinds of NaN warn
        return bool(((values >= 0) & (values == np.floor(values))).all())


def _are_shares(values: np.ndarray) -> bool:
    """Whether all are from 0 to 1, which no NaN is."""
    return bool(((values >= 0) & (values <= 1)).all())


class IndexWriter:
    """Writes an index block by block; no more than a block is in memory. Use it in a ``with`` block.

    Args:
        scratch: makes the streams that the columns grow in, such as :func:`tempfile.TemporaryFile`.
    """

    def __init__(self, scratch: Callable[[], IO[bytes]]):
        self._columns = ColumnWriter(scratch)
        self._ends = dict.fromkeys(("path_starts", "label_starts", "corner_starts", "fault_starts"), 0)
        self._images = 0

    def __enter__(self) -> IndexWriter:
        self._columns.__enter__()
        for name in self._ends:
            self._columns.append(name, [0])
        return self

    def __exit__(self, *failure: Any) -> None:
        self._columns.__exit__(*failure)

    def append(self, image_files: Sequence[str], records: Sequence[ImageRecord]) -> None:
        """Add images; their paths and what was found, in the same order."""
        labels = [record.label for record in records]
        polygons = [polygon for label in labels for polygon in label.polygons]
        self._columns.append("sizes", [record.size_wh or (0, 0) for record in records])
        self._columns.append("states", [record.states for record in records])
        self._columns.append(
            "labels", np.concatenate([np.zeros((0, 5), np.float32), *(label.labels for label in labels)])
        )
        self._columns.append("lines", np.concatenate([np.zeros(0, np.int32), *(label.lines for label in labels)]))
        self._columns.append("points", np.concatenate([np.zeros((0, 2), np.float32), *polygons]))
        self._append_starts("label_starts", [len(label.labels) for label in labels])
        self._append_starts("corner_starts", [len(polygon) for polygon in polygons])
        self._append_texts("path", image_files)
        faults = []
        for row, (image_file, record) in enumerate(zip(image_files, records, strict=True), self._images):
            faults += [(row, 0, record.fault)] if record.fault else []
            faults += [(row, fault_line(fault, label_path(image_file)), fault) for fault in record.label.faults]
        self._columns.append("fault_rows", [row for row, _, _ in faults])
        self._columns.append("fault_lines", [line for _, line, _ in faults])
        self._append_texts("fault", [text for _, _, text in faults])
        self._images += len(records)

    def _append_starts(self, name: str, lengths: Sequence[int]) -> None:
        ends = np.cumsum([self._ends[name], *lengths], dtype=np.int64)
        self._columns.append(name, ends[1:])
        self._ends[name] = int(ends[-1])

    def _append_texts(self, kind: str, texts: Sequence[str]) -> None:
        packed = PackedTexts(texts)
        self._columns.append(f"{kind}_bytes", packed.bytes)
        self._append_starts(f"{kind}_starts", np.diff(packed.starts).tolist())

    def save(self, stream: IO[bytes]) -> bytes:
        """Write the whole index to a stream; returns its header, as :attr:`LabelIndex.header`."""
        return self._columns.save(stream, VERSIONS)

    def in_memory(self) -> LabelIndex:
        """The index, without any file."""
        stream = BytesIO()
        self.save(stream)
        return LabelIndex(StoredColumns(stream.getvalue(), "label index in memory"))
