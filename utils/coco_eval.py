"""Average precision by pycocotools, from its own files or from what an evaluation collected."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.log import LOGGER
from utils.matching import ImageRecord

if TYPE_CHECKING:
    from pycocotools.coco import COCO

_FIRST_ID = 1  # pycocotools takes 0 for "no match"


@dataclass(frozen=True)
class CocoFigures:
    """What pycocotools found, 0..1; the sizes are those of labels in px of the original images.

    Attributes:
        map50: mean average precision at IoU 0.50.
        map: mean over IoU 0.50 to 0.95 too.
        small: the same for areas up to 32 x 32; None when no label has such a size.
        medium: for areas from 32 x 32 to 96 x 96.
        large: for areas from 96 x 96.
    """

    map50: float = 0.0
    map: float = 0.0
    small: float | None = None
    medium: float | None = None
    large: float | None = None


def coco_figures(records: Sequence[ImageRecord], nc: int, max_det: int = 300) -> CocoFigures:
    """Evaluate with pycocotools what an evaluation collected; no files are read or written.

    Args:
        records: the images; their order decides between equal confidences.
        nc: number of classes.
        max_det: detections that count per image and class.

    Returns:
        Zeros where there are no labels or no detections.
    """
    if not any(len(record.labels) for record in records) or not any(len(record.detections) for record in records):
        return CocoFigures()
    from pycocotools.coco import COCO  # noqa: PLC0415 - it brings matplotlib along, which few validations need
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415 - likewise

    with _captured():
        run = COCOeval(
            _indexed(COCO(), _label_entries(records), len(records), nc),
            _indexed(COCO(), _detection_entries(records), len(records), nc),
            "bbox",
        )
        run.params.maxDets = [max_det]
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][..., 0]  # (thresholds, recalls, classes, areas), -1 for classes without labels
    means = [_mean(precision[..., area]) for area in range(precision.shape[-1])]
    return CocoFigures(_mean(precision[0, ..., 0]) or 0.0, means[0] or 0.0, *means[1:])


def coco_figures_of_files(annotations: Path, predictions: Path, image_ids: Sequence[int | str]) -> tuple[float, float]:
    """mAP50-95 and mAP50 by pycocotools on its own files, with its defaults; its table is logged.

    Args:
        annotations: COCO's ground truth.
        predictions: JSON list in COCO's result form.
        image_ids: images that were evaluated.
    """
    from pycocotools.coco import COCO  # noqa: PLC0415 - it brings matplotlib along, which few validations need
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415 - likewise

    if not json.loads(predictions.read_text(encoding="utf-8")):
        return 0.0, 0.0
    with _captured():
        truth = COCO(str(annotations))
        run = COCOeval(truth, truth.loadRes(str(predictions)), "bbox")
        run.params.imgIds = list(image_ids)
        run.evaluate()
        run.accumulate()
    with _captured() as table:
        run.summarize()
    LOGGER.info(table.getvalue().rstrip())
    return float(run.stats[0]), float(run.stats[1])


@contextlib.contextmanager
def _captured() -> Iterator[io.StringIO]:
    """Keep what pycocotools prints off the terminal."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        yield text


def _indexed(coco: COCO, entries: Iterator[dict[str, Any]], images: int, nc: int) -> COCO:
    """Labels or detections as pycocotools holds them after reading a file."""
    coco.dataset = {
        "images": [{"id": number} for number in range(images)],
        "categories": [{"id": kind} for kind in range(nc)],
        "annotations": list(entries),
    }
    coco.createIndex()
    return coco


def _label_entries(records: Sequence[ImageRecord]) -> Iterator[dict[str, Any]]:
    number = _FIRST_ID
    for image, record in enumerate(records):
        for kind, *corners in record.labels.tolist():
            yield {"id": number, "image_id": image, "category_id": int(kind), "iscrowd": 0, **_place(corners)}
            number += 1


def _detection_entries(records: Sequence[ImageRecord]) -> Iterator[dict[str, Any]]:
    number = _FIRST_ID
    for image, record in enumerate(records):
        for *corners, confidence, kind in record.detections.tolist():
            entry = {"id": number, "image_id": image, "category_id": int(kind), "score": confidence}
            yield {**entry, **_place(corners)}
            number += 1


def _place(corners: Sequence[float]) -> dict[str, Any]:
    """A box as COCO writes it, with the area of the box."""
    left, top, right, bottom = corners
    width, height = right - left, bottom - top
    return {"bbox": [left, top, width, height], "area": width * height}


def _mean(precision: np.ndarray) -> float | None:
    """Mean over everything but classes without labels; None without any label."""
    known = precision[precision > -1]
    return float(known.mean()) if len(known) else None
