"""One label file: what its lines mean, and which of them cannot be meant.

A line is ``class x_center y_center width height``, or ``class x1 y1 x2 y2 x3 y3 ...``, a polygon whose bounding box is
the label; coordinates are shares of the image in [0, 1]. Boxes and polygons may be mixed. A line that is neither is
left out and reported with its number; the others of its file still count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from utils.paths import special_kind

PARSER_VERSION = 1  # raise it when the same text gives other labels or faults: indexes are then built again

_BOX_VALUES, _SMALLEST_POLYGON = 5, 7
_LARGEST_CLASS = 1 << 24  # whole numbers beyond it are not all float32, as labels are kept


@dataclass(frozen=True)
class LabelFile:
    """The objects of one image.

    Attributes:
        labels: (N, 5) float32 rows class, x, y, width, height, normalised.
        polygons: one (n, 2) float32 outline per label, normalised; (0, 2) where the label is a plain box.
        lines: (N,) int32 line number of each label, from 1.
        faults: texts ``file:line: what is wrong`` of the lines left out.
    """

    labels: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.float32))
    polygons: tuple[np.ndarray, ...] = ()
    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    faults: tuple[str, ...] = ()

    def select(self, kept: np.ndarray) -> LabelFile:
        """Keep the labels of a (N,) bool mask."""
        polygons = tuple(polygon for polygon, keep in zip(self.polygons, kept, strict=True) if keep)
        return replace(self, labels=self.labels[kept], polygons=polygons, lines=self.lines[kept])


class LabelLineError(ValueError):
    """A line that is no label.

    Attributes:
        kind: ``columns``, ``number``, ``class`` or ``range``, which the text explains.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def read_label_file(path: str | Path) -> LabelFile:
    """Read a label file; a missing or empty one belongs to a background image and has no labels."""
    try:
        text = read_text(path)
    except FileNotFoundError:
        return LabelFile()
    except OSError as error:
        return LabelFile(faults=(f"{Path(path)}:1: cannot be read ({error.strerror or error})",))
    return parse_labels(text, str(Path(path)))


def read_text(path: str | Path) -> str:
    """The text of a label file, without a byte order mark; bytes that are no UTF-8 become replacement characters.

    Raises:
        OSError: when there is none or it cannot be read, as a named pipe or a device cannot.
    """
    file = Path(path)
    special = special_kind(file)
    if special:  # waiting for its bytes could take for ever
        raise OSError(f"is {special}")
    return file.read_bytes().decode("utf-8-sig", errors="replace")


def split_lines(text: str) -> list[str]:
    """The lines of a label file, whatever their ends; line n has the index n - 1."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def parse_labels(text: str, name: str) -> LabelFile:
    """Read the text of a label file.

    Args:
        text: the content; any kind of line end.
        name: what to call the file in reports.
    """
    labels: list[tuple[float, ...]] = []
    polygons: list[np.ndarray] = []
    lines: list[int] = []
    faults: list[str] = []
    first_seen: dict[tuple[float, ...], int] = {}
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            label, polygon = parse_line(line.split())
        except LabelLineError as error:
            faults.append(f"{name}:{number}: {error}")
            continue
        if label in first_seen:
            faults.append(f"{name}:{number}: repeats line {first_seen[label]}")
            continue
        first_seen[label] = number
        labels.append(label)
        polygons.append(polygon)
        lines.append(number)
    array = np.array(labels, dtype=np.float32).reshape(-1, _BOX_VALUES)
    return LabelFile(array, tuple(polygons), np.array(lines, dtype=np.int32), tuple(faults))


def parse_line(words: list[str]) -> tuple[tuple[float, ...], np.ndarray]:
    """One line to a label row ``class, x, y, w, h`` and its outline, (0, 2) for a plain box.

    Args:
        words: the line, split at blanks.

    Raises:
        LabelLineError: saying what is wrong.
    """
    count = len(words)
    if count != _BOX_VALUES and (count < _SMALLEST_POLYGON or count % 2 == 0):
        raise LabelLineError(
            "columns",
            f"{count} values; a box has 5 (class x y w h), a polygon 7, 9, 11, ... (class x1 y1 x2 y2 ...)",
        )
    class_id, *coordinates = (_number(word) for word in words)
    if not 0 <= class_id <= _LARGEST_CLASS or not class_id.is_integer():
        raise LabelLineError("class", f"class {words[0][:20]} is not a whole number from 0")
    for word, value in zip(words[1:], coordinates, strict=True):
        if not 0 <= value <= 1:
            raise LabelLineError(
                "range", f"coordinate {word[:20]} is outside 0..1; labels are shares of the image's width and height"
            )
    if count == _BOX_VALUES:
        return (class_id, *coordinates), np.zeros((0, 2), np.float32)
    points = np.array(coordinates, dtype=np.float32).reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    return (class_id, *((low + high) / 2).tolist(), *(high - low).tolist()), points


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise LabelLineError("number", f"{word[:20]!r} is not a number") from None
    if not math.isfinite(value):
        raise LabelLineError("number", f"{word[:20]!r} is not a finite number")
    return value


def format_label(class_id: int, numbers: Iterable[float]) -> str:
    """One line of a label file, without its end: the class, then the numbers with six significant digits."""
    return " ".join([str(class_id), *(f"{number:.6g}" for number in numbers)])


def refuse_unknown_classes(label: LabelFile, nc: int, name: str) -> LabelFile:
    """Leave out labels whose class is not below the class count, and report them.

    Args:
        label: content of one file.
        nc: class count of the data set.
        name: what to call the file in reports.
    """
    known = label.labels[:, 0] < nc
    if known.all():
        return label
    faults = tuple(
        unknown_class_fault(name, line, class_id, nc)
        for line, class_id in zip(label.lines[~known], label.labels[~known, 0], strict=True)
    )
    in_order = sorted(label.faults + faults, key=lambda fault: fault_line(fault, name))
    return replace(label.select(known), faults=tuple(in_order))


def unknown_class_fault(name: str, line: int, class_id: float, nc: int) -> str:
    """What to say about a label whose class is not below the class count.

    Args:
        name: what to call the label file.
        line: of the label, from 1.
        class_id: of the label.
        nc: class count of the data set.
    """
    return f"{name}:{line}: class {class_id:.0f} is not below the data set's class count {nc}"


def fault_line(fault: str, name: str) -> int:
    """The line that a fault of a file called ``name`` is about; 1 where it names none, as of labels from elsewhere."""
    number = fault.removeprefix(f"{name}:").partition(":")[0]
    return int(number) or 1 if number.isdecimal() and len(number) < 10 else 1
