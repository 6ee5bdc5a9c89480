"""Small annotated data sets, as files of other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.annotations.output import Output
from utils.annotations.record import AnnotatedImage, AnnotatedSet, Annotation, Category

SIZE_WH = (100, 80)
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 90, "name": "brush 刷"}]  # as COCO's: gaps
CORNERS = [[10.0, 20.0], [50.0, 20.0], [50.0, 60.0], [10.0, 60.0]]
FLAT = [value for corner in CORNERS for value in corner]
MASK = {"size": [80, 100], "counts": [10, 20, 7970]}


def draw(file: Path, size_wh: tuple[int, int] = SIZE_WH) -> Path:
    """A picture of one colour."""
    file.parent.mkdir(parents=True, exist_ok=True)
    done, encoded = cv2.imencode(file.suffix, np.zeros((size_wh[1], size_wh[0], 3), np.uint8))
    assert done
    encoded.tofile(file)
    return file


def image_entry(number: int | str, name: str, **changes: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": SIZE_WH[0], "height": SIZE_WH[1], **changes}


def object_entry(number: int, image: int | str, category: int, bbox: Any, **changes: Any) -> dict[str, Any]:
    area = bbox[2] * bbox[3] if isinstance(bbox, list) and len(bbox) == 4 else 0
    base = {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": area, "iscrowd": 0}
    return {**base, "segmentation": [], **changes}


def instances(**changes: Any) -> dict[str, Any]:
    """Two images: ids with gaps, a crowd, an area that is not the box's, an outline, a box of fractions."""
    content = {
        "images": [image_entry(139, "000000000139.png"), image_entry(7, "000000000007.png")],
        "annotations": [
            object_entry(5, 139, 18, [10, 20, 40, 40], segmentation=[FLAT], area=1200.5),
            object_entry(6, 139, 1, [0.5, 1.25, 30.125, 40.5]),
            object_entry(9, 139, 1, [60, 10, 30, 50], iscrowd=1, segmentation=MASK, area=20),
            object_entry(12, 7, 90, [80, 60, 20, 20]),
        ],
        "categories": CATEGORIES,
    }
    return {**content, **changes}


def save_coco(root: Path, content: Any | None = None, split: str = "train") -> Path:
    """A data set as COCO's is laid out; returns the JSON."""
    content = instances() if content is None else content
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    for name in ("000000000139.png", "000000000007.png"):
        draw(root / "images" / split / name)
    return file


def neutral(folder: Path) -> AnnotatedSet:
    """A set in neutral form: two splits, an image without objects, names beyond ASCII, a folder within."""

    def image(name: str, split: str, *objects: Annotation) -> AnnotatedImage:
        return AnnotatedImage(draw(folder / split / name), name, SIZE_WH, objects, split)

    dog = Annotation("dog", (10, 20, 50, 60), outlines=(np.array(CORNERS),))
    return AnnotatedSet(
        [
            image("a.png", "train", dog, person(0.4, 1.3, 33.7, 41)),
            image("cam 1/图.png", "train", person(99.2, 79.4, 100, 80), person(0, 0, 100, 80)),
            image("empty.png", "train"),
            image("b.png", "val", person(5, 5, 25, 25)),
        ],
        [Category("dog"), Category("person")],
    )


def person(*box: float) -> Annotation:
    return Annotation("person", box)


def output(folder: Path, images: str = "copy") -> Output:
    folder.mkdir(parents=True, exist_ok=True)
    return Output(folder, folder, images)
