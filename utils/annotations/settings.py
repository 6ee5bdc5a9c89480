"""What a conversion may be asked for beyond formats and folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReadSettings:
    """How to read.

    Attributes:
        images_required: images without a file are left out; otherwise a size that the annotation declares will do.
        image_folder: where the images are; None looks for them where the format usually has them.
        one_based: PASCAL VOC: pixels count from 1 and the last one belongs to the box.
        difficult: PASCAL VOC: keep objects marked difficult.
    """

    images_required: bool = True
    image_folder: Path | None = None
    one_based: bool = False
    difficult: bool = False


@dataclass(frozen=True)
class WriteSettings:
    """How to write.

    Attributes:
        one_based: PASCAL VOC: as above.
        polygons: YOLO: write the outline of an object that has exactly one, instead of its box.
    """

    one_based: bool = False
    polygons: bool = False
