"""pycocotools fed by hand, and images on which many detections compete: what our figures are checked against."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from utils.matching import ImageRecord

EVERY_AREA = ((0.0, 1e10),)


def cocoeval(
    images: Sequence[tuple[np.ndarray, np.ndarray]],
    nc: int,
    areas: Sequence[tuple[float, float]] = EVERY_AREA,
    max_det: int = 10_000,
    area_of: Callable[[int, int], float] | None = None,
) -> COCOeval:
    """COCOeval over (detections, labels) pairs.

    ``area_of(image, label)`` replaces the areas of the labels; those of all detections are 1 then, which lets a test
    put any labels aside by their "area".
    """
    annotations, results = [], []
    for index, (found, labels) in enumerate(images):
        for place, (kind, x1, y1, x2, y2) in enumerate(np.asarray(labels, np.float64).tolist()):
            entry = {"image_id": index, "category_id": int(kind), "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
            area = (x2 - x1) * (y2 - y1) if area_of is None else area_of(index, place)
            annotations.append({**entry, "id": len(annotations) + 1, "area": area})
        for x1, y1, x2, y2, score, kind in np.asarray(found, np.float64).tolist():
            bbox = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": index, "category_id": int(kind), "bbox": bbox, "score": score})
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": index} for index in range(len(images))],
        "categories": [{"id": kind} for kind in range(nc)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        answers = truth.loadRes(results)
        for answer in answers.dataset["annotations"] if area_of is not None else ():
            answer["area"] = 1.0
        evaluation = COCOeval(truth, answers, "bbox")
        evaluation.params.areaRng = [list(area) for area in areas]
        evaluation.params.areaRngLbl = [str(area) for area in areas]
        evaluation.params.maxDets = [max_det]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def figures(evaluation: COCOeval, area: int = 0) -> tuple[float, float]:
    """mAP50 and mAP50-95 of one area range; -1 without labels in it."""
    precision = evaluation.eval["precision"][:, :, :, area, 0]
    return tuple(float(part[part > -1].mean()) if (part > -1).any() else -1.0 for part in (precision[0], precision))


def crowded_images(
    count: int = 40, nc: int = 3, side: int = 220, whole: bool = False, ties: bool = False
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images where many detections compete for few labels, small to large, with many false ones.

    Args:
        count: number of images; one has no labels and one no detections.
        nc: number of classes.
        side: px.
        whole: boxes on a coarse grid, so that many overlaps lie exactly on a threshold.
        ties: confidences of one decimal.
    """
    draw = np.random.default_rng(11)
    images = []
    for number in range(count):
        labels, extra = (0 if number == 1 else draw.integers(2, 16)), 25
        extent = np.exp(draw.uniform(np.log(12), np.log(150), (labels, 2)))
        corner = draw.uniform(0, 1, (labels, 2)) * (side - extent)
        box = np.concatenate([corner, corner + extent], 1)
        kind = draw.integers(0, nc, labels)
        near = [box + draw.normal(0, scale, box.shape) * extent.mean(1, keepdims=True) for scale in (0.04, 0.1)]
        stray = draw.uniform(0, side * 0.7, (extra, 2))
        stray = np.concatenate([stray, stray + draw.uniform(8, 110, (extra, 2))], 1)
        boxes = np.concatenate([*near, stray])
        classes = np.concatenate([kind, kind, draw.integers(0, nc, extra)])
        confidence = draw.random(len(boxes)) * np.where(np.arange(len(boxes)) < 2 * labels, 1.0, 0.7)
        if whole:
            box, boxes = (np.rint(part / 5) * 5 for part in (box, boxes))
        if ties:
            confidence = confidence.round(1)
        keep = ((boxes[:, 2:] - boxes[:, :2]) > 1).all(1)
        found = np.concatenate([boxes, confidence[:, None], classes[:, None]], 1)[keep][: 0 if number == 2 else None]
        images.append((found.astype(np.float32), np.concatenate([kind[:, None], box], 1).astype(np.float32)))
    return images


def records_of(images: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[ImageRecord]:
    """The same images as an evaluation collects them."""
    import torch

    return [ImageRecord.of(torch.from_numpy(found), torch.from_numpy(labels)) for found, labels in images]
