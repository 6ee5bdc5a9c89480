"""One label file: what training's own reader says about it, and boxes that it takes although they cannot be meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.datasets.labels import (
    LabelFile,
    LabelLineError,
    fault_line,
    parse_line,
    read_label_file,
    read_text,
    refuse_unknown_classes,
    split_lines,
)
from utils.doctor.findings import Finding
from utils.paths import special_kind

_NO_TEXT = ("\0", "\ufffd")  # what UTF-16 and other encodings leave behind
BORDER = 0.002  # share of the image by which a box may overhang: what rounding can explain
_FLAT = 1e-7  # share of the image below which a polygon has no area


@dataclass(frozen=True)
class LabelCheck:
    """What looking at a label file brought.

    Attributes:
        label: what training will use of it.
        unknown: classes in it that the data set does not have.
        findings: what is wrong with it, in the order of the lines.
    """

    label: LabelFile
    unknown: tuple[int, ...]
    findings: tuple[Finding, ...]


def check_label_file(file: str, nc: int, split: str) -> LabelCheck:
    """Read a label file as training does, and find what is wrong with it.

    Args:
        file: its path; a missing file is a background image's.
        nc: class count of the data set.
        split: train, val or test.
    """
    whole = read_label_file(file)
    label = refuse_unknown_classes(whole, nc, str(Path(file)))
    findings = list(_refused(file, label, nc, split)) if label.faults else []
    if len(label.labels):
        findings += _odd_boxes(file, label, split)
    classes = whole.labels[:, 0]
    unknown = tuple({int(number) for number in classes[classes >= nc].tolist()})
    return LabelCheck(label, unknown, tuple(sorted(findings, key=lambda finding: finding.line)))


def check_annotations(image: str, label: LabelFile, split: str) -> LabelCheck:
    """Find what is wrong with labels out of COCO's JSON, which have no lines: their places are the image's.

    Args:
        image: path of the image that they are of.
        label: what training will use.
        split: train, val or test.
    """
    label = replace(label, lines=np.zeros_like(label.lines))
    left_out = [Finding("annotation", fault, image, 0, split) for fault in label.faults]
    odd = _odd_boxes(image, label, split) if len(label.labels) else ()
    return LabelCheck(label, (), (*left_out, *odd))


def _refused(file: str, label: LabelFile, nc: int, split: str) -> Iterator[Finding]:
    """What training leaves out, each with its kind."""
    name = str(Path(file))
    try:
        lines = split_lines(read_text(file))
    except OSError:
        kind = "label-special" if special_kind(file) else "label-unreadable"
        yield Finding(kind, label.faults[0].removeprefix(f"{name}:1: "), file, 0, split)
        return
    is_text = True
    for fault in label.faults:
        number = fault_line(fault, name)
        kind, text = _kind_of(lines[number - 1], nc), fault.removeprefix(f"{name}:{number}: ")
        if kind == "label-encoding":
            text = "bytes that are no UTF-8 text"
        if is_text or kind != "label-encoding":  # once a file says it all
            yield Finding(kind, text, file, number, split)
        is_text = is_text and kind != "label-encoding"


def _kind_of(line: str, nc: int) -> str:
    """The kind of a refused line; one that is a label in itself is refused for its class, or repeats another."""
    try:
        label, _ = parse_line(line.split())
    except LabelLineError as error:
        return "label-encoding" if any(mark in line for mark in _NO_TEXT) else f"label-{error.kind}"
    return "label-duplicate" if label[0] < nc else "label-unknown-class"


def _odd_boxes(file: str, label: LabelFile, split: str) -> Iterator[Finding]:
    """Boxes without area, beyond the image or with two classes, and polygons without area."""
    boxes = label.labels[:, 1:]  # (N, 4) x, y, w, h
    flat = (boxes[:, 2:] <= 0).any(axis=1)
    for row in np.flatnonzero(flat):
        width, height = boxes[row, 2:]
        text = f"the box is {width:g} wide and {height:g} high"
        yield Finding("label-no-area", text, file, int(label.lines[row]), split)
    excess = overhang(boxes)
    for row in np.flatnonzero((excess > BORDER) & ~flat):
        text = f"the box reaches beyond the image by {excess[row]:.3g} of its side"
        yield Finding("label-beyond", text, file, int(label.lines[row]), split)
    yield from _two_classes(file, label, split)
    for row, polygon in enumerate(label.polygons):
        if len(polygon) and not flat[row] and _area(polygon) < _FLAT:
            text = f"the polygon's {len(polygon)} points lie on a line"
            yield Finding("polygon-flat", text, file, int(label.lines[row]), split)


def overhang(boxes: np.ndarray) -> np.ndarray:
    """How far boxes reach beyond their image.

    Args:
        boxes: (N, 4) x, y, w, h, normalised.

    Returns:
        (N,) largest of the four sides' shares of the image; not above 0 for a box that is inside.
    """
    boxes = boxes.astype(np.float64)
    half = boxes[:, 2:] / 2
    return np.maximum(half - boxes[:, :2], boxes[:, :2] + half - 1).max(axis=1)


def _two_classes(file: str, label: LabelFile, split: str) -> Iterator[Finding]:
    first_seen: dict[bytes, int] = {}
    for row, box in enumerate(label.labels[:, 1:]):
        first = first_seen.setdefault(box.tobytes(), row)
        if label.labels[first, 0] != label.labels[row, 0]:
            classes = f"{int(label.labels[first, 0])} there, {int(label.labels[row, 0])} here"
            text = f"has the box of line {label.lines[first]} with another class: {classes}"
            yield Finding("label-two-classes", text, file, int(label.lines[row]), split)


def _area(polygon: np.ndarray) -> float:
    """Area of an outline (n, 2), by the trapezoids below its edges; where it crosses itself, parts cancel."""
    x, y = polygon.astype(np.float64).T
    return abs(float(((np.roll(x, -1) - x) * (np.roll(y, -1) + y)).sum())) / 2
