"""Columns over the images of a data set: sequences that lie in a few large arrays, not in a million small objects.

Worker processes start with the main process's memory and share its pages until somebody writes to them, and Python
writes to an object, its count of references, whenever it is looked at. A list of a million small objects so ends up
as a copy in every worker. One large array is looked at without being written to: what is asked for is cut out on the
spot and forgotten afterwards.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np


class _Sequence(Sequence):
    """Indexing and slices (as lists); subclasses know their length and cut out one entry."""

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self._entry(row) for row in range(*place.indices(len(self)))]
        return self._entry(range(len(self))[place])  # negative ones count from the end, others beyond it raise

    def _entry(self, row: int) -> Any:
        raise NotImplementedError


class Column(_Sequence):
    """One thing about each of some images, in an order of its own, looked up when it is asked for.

    Args:
        entry: what belongs to a row of the label index, such as :meth:`LabelIndex.image_file`.
        rows: (N,) row of each entry.
    """

    def __init__(self, entry: Callable[[int], Any], rows: np.ndarray):
        self._look_up, self._rows = entry, rows

    def __len__(self) -> int:
        return len(self._rows)

    def _entry(self, row: int) -> Any:
        return self._look_up(int(self._rows[row]))


class PackedTexts(_Sequence):
    """Texts, such as file paths in any encoding.

    Attributes:
        bytes: uint8, the texts one behind the other in UTF-8.
        starts: (N + 1,) int64 where each begins, and the end of the last.
    """

    def __init__(self, texts: Iterable[str]):
        joined, starts = bytearray(), array("q", [0])
        for text in texts:
            joined += text.encode("utf-8", "surrogateescape")
            starts.append(len(joined))
        self.bytes, self.starts = np.frombuffer(joined, np.uint8), np.frombuffer(starts, np.int64)

    @classmethod
    def of(cls, characters: np.ndarray, starts: np.ndarray) -> PackedTexts:
        """The texts of two arrays, which are not copied; see the attributes."""
        texts = cls.__new__(cls)
        texts.bytes, texts.starts = characters, starts
        return texts

    def same(self, other: PackedTexts) -> bool:
        """Whether another column has the same texts in the same order; far quicker than comparing them one by one."""
        return np.array_equal(self.starts, other.starts) and np.array_equal(self.bytes, other.bytes)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def _entry(self, row: int) -> str:
        begin, end = int(self.starts[row]), int(self.starts[row + 1])
        return self.bytes[begin:end].tobytes().decode("utf-8", "surrogateescape")


class PackedImages(_Sequence):
    """Images (height, width, 3) uint8 of known sizes; an entry is a view, through which its pixels are put in.

    Args:
        sizes_hw: (N, 2) height and width of each.
    """

    def __init__(self, sizes_hw: np.ndarray):
        self._sizes_hw = np.asarray(sizes_hw, dtype=np.int64).reshape(-1, 2)
        self._starts = np.cumsum([0, *(3 * self._sizes_hw.prod(axis=1))], dtype=np.int64)
        self._pixels = np.empty(int(self._starts[-1]), np.uint8)

    def __len__(self) -> int:
        return len(self._sizes_hw)

    def _entry(self, row: int) -> np.ndarray:
        begin, end = int(self._starts[row]), int(self._starts[row + 1])
        return self._pixels[begin:end].reshape(*self._sizes_hw[row].tolist(), 3)
