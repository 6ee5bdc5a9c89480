"""What every way of running a trained detector offers, and what the file behind it tells about itself."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import torch

from utils.errors import BackendError
from utils.sizes import SMALLEST_GRID

_COORDINATES = 5  # x, y, w, h and objectness stand before the class scores
_FINISHED_WIDTH = 6  # x1 y1 x2 y2 confidence class: a row after suppression
_LONGEST_NAMES = 1_000_000  # characters; the parser of literals takes much memory for more


@dataclass(frozen=True)
class FileFacts:
    """What a file says about the network in it.

    Attributes:
        names: class names by index; None where the file has none.
        stride: px, what image sizes divide by.
        batch: images that one call takes; None for any number.
        hw: height and width that it takes, px; None for any.
        half: takes float16 images.
        nms: gives finished detections, (B, rows, 6) of x1 y1 x2 y2 confidence class, unused rows zero.
        classes: how many it knows; None where that does not show.
    """

    names: dict[int, str] | None = None
    stride: int = SMALLEST_GRID
    batch: int | None = None
    hw: tuple[int, int] | None = None
    half: bool = False
    nms: bool = False
    classes: int | None = None

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any], origin: str) -> Self:
        """Facts from a file's own notes: ``stride``, ``names`` and, where suppression is inside, ``nms``.

        Args:
            metadata: values, or texts of them as Python or JSON write them; what is missing keeps its default.
            origin: the file, for messages.

        Raises:
            BackendError: when a note makes no sense.
        """
        values = {key: _value(metadata[key], key, origin) for key in ("stride", "names", "nms") if key in metadata}
        stride = values.get("stride", SMALLEST_GRID)
        if isinstance(stride, bool) or not isinstance(stride, (int, float)) or not 1 <= stride <= 4096:
            raise BackendError(
                f"{origin}: its metadata says stride {stride!r}; expected a number of px; export it anew"
            )
        names = _names(values["names"], origin) if values.get("names") is not None else None
        return cls(names=names, stride=max(int(stride), SMALLEST_GRID), nms=bool(values.get("nms", False)))

    def with_shapes(self, given: Sequence[Any], found: Sequence[Any], origin: str) -> Self:
        """These facts, with those that the shapes of input and output tell.

        Args:
            given: of the input; whole numbers where a size is fixed, anything else where it is open.
            found: of the output, alike.
            origin: the file, for messages.

        Raises:
            BackendError: when these are not the shapes of a detector.
        """
        sizes = [size if isinstance(size, int) and size > 0 else None for size in given]
        if len(sizes) != 4 or sizes[1] not in (3, None) or len(found) != 3:
            raise BackendError(
                f"{origin}: expected images (B, 3, H, W) in and boxes (B, rows, 5 + classes) out, found "
                f"{_shown(given)} and {_shown(found)}; this is no detector exported by export.py"
            )
        width = found[2] if isinstance(found[2], int) else None
        classes = None if width is None or self.nms else width - _COORDINATES
        if (classes is not None and classes < 1) or (self.nms and width not in (None, _FINISHED_WIDTH)):
            raise BackendError(f"{origin}: its rows have {width} numbers, which is not what a detector gives")
        if classes is not None and self.names is not None and len(self.names) != classes:
            raise BackendError(f"{origin}: its metadata names {len(self.names)} classes, its output has {classes}")
        if classes is None and self.names is not None:
            classes = len(self.names)
        hw = (sizes[2], sizes[3]) if sizes[2] and sizes[3] else None
        return replace(self, batch=sizes[0], hw=hw, classes=classes)


class Backend(Protocol):
    """A detector loaded from a file.

    Attributes:
        facts: what the file says.
        model: what the library made of it: a module, a session, a net.
    """

    facts: FileFacts
    model: Any

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in 0..1 of the type and the sizes in ``facts`` -> (B, rows, 5 + classes), on the same device.

        Rows are centre x, y, width, height in px, objectness and class scores; with ``facts.nms`` as said there.
        """


def existing(path: str | Path) -> Path:
    """The path, when something is there.

    Raises:
        BackendError: when nothing is.
    """
    found = Path(path)
    if not found.exists():
        raise BackendError(f"{found}: no such file")
    return found


def _value(text: Any, key: str, origin: str) -> Any:
    """A note as a value; texts hold it as a literal of Python, or of JSON."""
    if not isinstance(text, str):
        return text
    if len(text) <= _LONGEST_NAMES:
        for read in (ast.literal_eval, json.loads):
            try:
                return read(text)
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
    raise BackendError(f"{origin}: its metadata `{key}` cannot be read ({text[:40]!r}); export it anew")


def _names(given: Any, origin: str) -> dict[int, str]:
    try:
        pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
        names = {int(index): str(name) for index, name in pairs}
    except (TypeError, ValueError):
        names = {}
    if not names or sorted(names) != list(range(len(names))):
        raise BackendError(f"{origin}: its metadata `names` is {str(given)[:40]!r}; expected {{0: 'name', ...}}")
    return dict(sorted(names.items()))


def _shown(shape: Sequence[Any]) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"
