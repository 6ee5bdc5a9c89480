"""Columns of a data set with rows of different length, each kept in one or two large arrays.

Worker processes start with the main process's memory and share its pages until somebody writes to them, and Python
writes to an object, its count of references, whenever it is looked at. A list of a million small objects so ends up
as a copy in every worker. One large array is looked at without being written to: what is asked for is cut out on the
spot and forgotten afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np


class _Column(Sequence):
    """Indexing, slices (as lists) and length; subclasses cut out one entry."""

    _starts: np.ndarray  # (N + 1,) where each entry begins, and the end of the last

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self._entry(row) for row in range(*place.indices(len(self)))]
        return self._entry(range(len(self))[place])  # negative ones count from the end, others beyond it raise

    def _bounds(self, row: int) -> tuple[int, int]:
        return int(self._starts[row]), int(self._starts[row + 1])

    def _entry(self, row: int) -> Any:
        raise NotImplementedError


def _starts_of(lengths: Iterable[int]) -> np.ndarray:
    """Where parts of given lengths begin when they lie one behind the other, and the end of the last."""
    return np.cumsum([0, *lengths], dtype=np.int64)


class PackedRows(_Column):
    """Arrays (n, width), n different for each; an entry is a view, so writing into it changes the column.

    Args:
        parts: the arrays.
        width: their second dimension.
    """

    def __init__(self, parts: Sequence[np.ndarray], width: int):
        self._rows = np.concatenate([np.zeros((0, width), np.float32), *parts])
        self._starts = _starts_of(map(len, parts))

    def _entry(self, row: int) -> np.ndarray:
        begin, end = self._bounds(row)
        return self._rows[begin:end]


class PackedTexts(_Column):
    """Texts, such as file paths in any encoding."""

    def __init__(self, texts: Sequence[str]):
        parts = [text.encode("utf-8", "surrogateescape") for text in texts]
        self._bytes = b"".join(parts)
        self._starts = _starts_of(map(len, parts))

    def _entry(self, row: int) -> str:
        begin, end = self._bounds(row)
        return self._bytes[begin:end].decode("utf-8", "surrogateescape")


class PackedOutlines(_Column):
    """Per image a list of outlines (k, 2), one a label and (0, 2) for a plain box; an empty list without polygons."""

    def __init__(self, images: Sequence[Sequence[np.ndarray]]):
        outlines = [outline for image in images for outline in image]
        self._points = np.concatenate([np.zeros((0, 2), np.float32), *outlines])
        self._corners = _starts_of(map(len, outlines))
        self._starts = _starts_of(map(len, images))

    def _entry(self, row: int) -> list[np.ndarray]:
        begin, end = self._bounds(row)
        corners = self._corners[begin : end + 1].tolist()
        if corners[0] == corners[-1]:
            return []
        return [self._points[first:last] for first, last in pairwise(corners)]


class PackedImages(_Column):
    """Images (height, width, 3) uint8 of known sizes; an entry is a view, through which its pixels are put in.

    Args:
        sizes_hw: (N, 2) height and width of each.
    """

    def __init__(self, sizes_hw: np.ndarray):
        self._sizes_hw = np.asarray(sizes_hw, dtype=np.int64).reshape(-1, 2)
        self._starts = _starts_of(3 * self._sizes_hw.prod(axis=1))
        self._pixels = np.empty(int(self._starts[-1]), np.uint8)

    def _entry(self, row: int) -> np.ndarray:
        begin, end = self._bounds(row)
        return self._pixels[begin:end].reshape(*self._sizes_hw[row].tolist(), 3)
