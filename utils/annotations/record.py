"""The neutral form between two formats: images with their objects, in pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {**{split: split for split in SPLITS}, "valid": "val", "validation": "val"}  # in names of files, folders

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Annotation:
    """One object.

    Attributes:
        category: name of its class.
        box_xyxy: left, top, right, bottom in px of the upright image; edges, so the width is right - left.
        crowd: stands for several objects that nobody separated: an ignored region for COCO's evaluation.
        difficult: PASCAL VOC's mark.
        area: px², of the object's mask where somebody knew it; None is that of the outlines, else of the box.
        outlines: its parts, each (n, 2) px; empty for a plain box.
        mask: COCO's run-length form of a mask, passed on as it is.
    """

    category: str
    box_xyxy: Box
    crowd: bool = False
    difficult: bool = False
    area: float | None = None
    outlines: tuple[np.ndarray, ...] = ()
    mask: Mapping[str, Any] | None = None

    @property
    def effective_area(self) -> float:
        """The area given, or else that of the outlines, or else that of the box, px²."""
        if self.area is not None:
            return self.area
        if self.outlines:
            return sum(map(outline_area, self.outlines))
        left, top, right, bottom = self.box_xyxy
        return (right - left) * (bottom - top)


@dataclass(frozen=True)
class AnnotatedImage:
    """One image with its objects.

    Attributes:
        file: where it is; need not be there when only annotations are converted.
        name: its path below the folder of images, with "/" between parts; never leads out of it.
        size_wh: width and height, px, upright.
        annotations: its objects.
        split: train, val, test, or None where the source has no splits.
        image_id: COCO's number, None for a new one.
    """

    file: Path
    name: str
    size_wh: tuple[int, int]
    annotations: tuple[Annotation, ...] = ()
    split: str | None = None
    image_id: int | str | None = None


@dataclass(frozen=True)
class Category:
    """One class: its name, COCO's number (None for a new one) and the name of the group it belongs to."""

    name: str
    category_id: int | None = None
    supercategory: str = ""


@dataclass(frozen=True)
class AnnotatedSet:
    """A data set: its images in the source's order, and its classes in the order of their numbers."""

    images: Sequence[AnnotatedImage] = field(default_factory=tuple)
    categories: Sequence[Category] = field(default_factory=tuple)

    @property
    def names(self) -> list[str]:
        """Names of the classes, in order."""
        return [category.name for category in self.categories]

    def of_split(self, split: str) -> list[AnnotatedImage]:
        """The images of a split."""
        return [image for image in self.images if image.split == split]

    @property
    def splits(self) -> list[str]:
        """The splits that have images, in their usual order."""
        present = {image.split for image in self.images}
        return [split for split in SPLITS if split in present]


def categories_by_name(images: Sequence[AnnotatedImage]) -> tuple[Category, ...]:
    """The classes that occur, sorted by name, for formats that have no list of them."""
    present = {one.category for image in images for one in image.annotations}
    return tuple(map(Category, sorted(present)))


def outline_area(points: np.ndarray) -> float:
    """Area inside an outline (n, 2), px², by the shoelace formula."""
    x, y = np.asarray(points, np.float64).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def bounds(outlines: Sequence[np.ndarray]) -> Box:
    """Left, top, right and bottom of everything that outlines (n, 2) enclose."""
    points = np.concatenate(list(outlines)).astype(np.float64)
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return left, top, right, bottom
