"""Files that an evaluation writes besides pictures: label files and COCO's JSON, as observers of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from engine.evaluator import EvaluatedBatch
from utils.boxes import xyxy2xywh
from utils.coco_results import coco_image_id, coco_rows
from utils.datasets.labels import format_label

# COCO numbers its 80 classes from 1 to 90; these numbers belong to classes without boxes.
_UNUSED_COCO_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in _UNUSED_COCO_IDS)


def is_coco(data: Mapping[str, Any]) -> bool:
    """Whether a data set validates on COCO's own images."""
    listed = data.get("val")
    return isinstance(listed, str) and Path(listed).name == "val2017.txt" and "coco" in Path(listed).parts


class LabelFiles:
    """Writes ``<stem>.txt`` per image: ``class x y w h [confidence]``, normalised by the original image.

    Args:
        folder: where the files go; a second run into it appends.
        with_confidence: add the confidence to each line.
    """

    def __init__(self, folder: Path, with_confidence: bool = False) -> None:
        self.folder, self.with_confidence = folder, with_confidence

    def __call__(self, batch: EvaluatedBatch) -> None:
        """Write the files of a batch; an image without detections gets none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path, (height, width), found in zip(batch.paths, batch.shapes_hw, batch.native, strict=True):
            if not len(found):
                continue
            boxes = xyxy2xywh(found[:, :4]) / found.new_tensor([width, height, width, height])
            numbers = torch.cat([boxes, found[:, 4:5]], 1) if self.with_confidence else boxes
            with (self.folder / f"{Path(path).stem}.txt").open("a", encoding="utf-8") as stream:
                for kind, row in zip(found[:, 5].tolist(), numbers.tolist(), strict=True):
                    stream.write(f"{format_label(int(kind), row)}\n")


class CocoJson:
    """Collects detections in COCO's result form.

    Args:
        category_ids: COCO's number for each class index; the index itself when omitted.
        image_ids: the number of each image's path; by the file's name when omitted.
    """

    def __init__(
        self, category_ids: Sequence[int] | None = None, image_ids: Mapping[str, int | str] | None = None
    ) -> None:
        self.category_ids, self._image_ids_of = category_ids, image_ids or {}
        self.rows: list[dict[str, Any]] = []
        self.image_ids: list[int | str] = []

    def __call__(self, batch: EvaluatedBatch) -> None:
        """Add the detections of a batch."""
        for path, found in zip(batch.paths, batch.native, strict=True):
            image_id = self._image_ids_of.get(path, coco_image_id(Path(path).stem))
            self.image_ids.append(image_id)
            self.rows += coco_rows(image_id, found.numpy(force=True), self.category_ids)

    def write(self, path: Path) -> None:
        """Write all rows as one JSON list."""
        path.write_text(json.dumps(self.rows), encoding="utf-8")
