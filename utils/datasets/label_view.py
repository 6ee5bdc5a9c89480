"""The labels of an index as one data set sees them."""

from __future__ import annotations

import numpy as np

from utils.datasets.label_index import LabelIndex
from utils.datasets.labels import unknown_class_fault
from utils.errors import printable

_LONGEST_FAULT = 1000  # characters; whoever wrote an index chose its texts


class LabelView:
    """Labels without the classes that the data set has not, or with a single class; nothing is copied beforehand.

    Args:
        index: of the split.
        nc: class count; labels beyond it are left out. None keeps all.
        single_cls: every class becomes 0, and none is left out.
    """

    def __init__(self, index: LabelIndex, nc: int | None = None, single_cls: bool = False):
        self._index, self._single_cls = index, single_cls
        all_known = nc is None or single_cls or bool((index.labels[:, 0] < nc).all())
        self._nc = None if all_known else nc

    def counts(self) -> np.ndarray:
        """(N,) labels of each image."""
        starts = self._index.label_starts
        if self._nc is not None:
            starts = np.append(0, np.cumsum(self._known(self._index.labels)))[starts]
        return np.diff(starts)

    def labels_of(self, row: int) -> np.ndarray:
        """Labels (n, 5) of an image; not to be written into."""
        labels = self._index.labels_of(row)
        if self._nc is not None:
            labels = labels[self._known(labels)]
        if self._single_cls:
            labels = np.concatenate([np.zeros_like(labels[:, :1]), labels[:, 1:]], axis=1)
        return labels

    def outlines_of(self, row: int) -> list[np.ndarray]:
        """One outline (k, 2) a label, (0, 2) for a plain box; an empty list where all are plain boxes."""
        outlines = self._index.outlines_of(row)
        if self._nc is None or not outlines:
            return outlines
        known = self._known(self._index.labels_of(row))
        kept = [outline for outline, keep in zip(outlines, known, strict=True) if keep]
        return kept if any(map(len, kept)) else []

    def faults(self, most: int) -> tuple[int, list[str]]:
        """How many faults there are, and the texts of the first: images by number, then label files line by line."""
        index = self._index
        refused = np.zeros(0, np.int64) if self._nc is None else np.flatnonzero(~self._known(index.labels))
        rows = np.append(index.fault_rows, np.searchsorted(index.label_starts, refused, side="right") - 1)
        lines = np.append(index.fault_lines, index.lines[refused])
        first = np.lexsort((lines, rows, lines > 0))[:most].tolist()
        return len(rows), [self._text(place, refused) for place in first]

    def _text(self, place: int, refused: np.ndarray) -> str:
        """The fault at a place among those of the scan and the labels refused."""
        index = self._index
        if place < len(index.faults):
            return printable(index.faults[place], _LONGEST_FAULT)
        label = int(refused[place - len(index.faults)])
        row = int(np.searchsorted(index.label_starts, label, side="right")) - 1
        return unknown_class_fault(index.label_file(row), int(index.lines[label]), index.labels[label, 0], self._nc)

    def _known(self, labels: np.ndarray) -> np.ndarray:
        return labels[:, 0] < self._nc
