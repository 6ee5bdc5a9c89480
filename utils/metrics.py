"""Detection metrics: fitness, and the totals of a validation run.

Matching detections with labels is in ``matching.py``, average precision in ``average_precision.py``, the confusion
matrix in ``confusion.py``; all of it can be imported from here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from utils.average_precision import (
    COCO,
    PrecisionRecall,
    ap_per_class,
    coco_ap,
    compute_ap,
    plot_curves,
    precision_recall,
    smooth,
)
from utils.boxes import bbox_ioa, bbox_iou, box_iou
from utils.confusion import ConfusionMatrix
from utils.matching import IOU_THRESHOLDS, ImageRecord, match_predictions, process_batch

__all__ = [
    "IOU_THRESHOLDS",
    "ConfusionMatrix",
    "DetectionMetrics",
    "ImageRecord",
    "MetricResult",
    "PrecisionRecall",
    "ap_per_class",
    "bbox_ioa",
    "bbox_iou",
    "box_iou",
    "coco_ap",
    "compute_ap",
    "fitness",
    "match_predictions",
    "plot_curves",
    "precision_recall",
    "process_batch",
    "smooth",
]

FITNESS_WEIGHTS = (0.0, 0.0, 0.1, 0.9)  # of precision, recall, mAP50, mAP50-95


def fitness(x: np.ndarray) -> np.ndarray:
    """One number to compare models by: 0.1 mAP50 + 0.9 mAP50-95.

    Args:
        x: (n, 4 or more) precision, recall, mAP50, mAP50-95.

    Returns:
        (n,).
    """
    return np.asarray(x)[:, :4] @ np.asarray(FITNESS_WEIGHTS)


# A validation run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MetricResult:
    """Totals of a validation run; ``K`` classes have labels. Without labels or right detections all shares are 0.

    Average precision is COCO's (:func:`utils.average_precision.coco_ap`), also in ``curves``.

    Attributes:
        p: (K,) precision at the confidence where the smoothed mean F1 is largest.
        r: (K,) recall there.
        f1: (K,) F1 there.
        ap: (K, 10) average precision at IoU 0.50 to 0.95.
        ap_class: (K,) class indices.
        mp: mean precision over classes with labels.
        mr: mean recall.
        map50: mean average precision at IoU 0.50.
        map: mean over IoU 0.50 to 0.95 too.
        maps: (nc,) average precision over all thresholds; classes without labels get the mean.
        instances: (nc,) labels of each class.
        images_with_class: (nc,) images with at least one label of it.
        images: images seen.
        curves: what the charts show; None without right detections.
    """

    p: np.ndarray
    r: np.ndarray
    f1: np.ndarray
    ap: np.ndarray
    ap_class: np.ndarray
    mp: float
    mr: float
    map50: float
    map: float
    maps: np.ndarray
    instances: np.ndarray
    images_with_class: np.ndarray
    images: int
    curves: PrecisionRecall | None


class DetectionMetrics:
    """Collects detections and labels image by image; matching and average precision follow COCO's rules.

    Args:
        nc: number of classes.
        names: class names, kept for callers that draw or print.

    Attributes:
        records: the images so far; the order of equal confidences follows theirs.
    """

    def __init__(self, nc: int, names: Mapping[int, str] | Sequence[str] = ()):
        self.nc = nc
        self.names = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
        self.records: list[ImageRecord] = []

    def reset(self) -> None:
        """Forget everything collected."""
        self.records = []

    def update(self, detections: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Add one image.

        Args:
            detections: (N, 6) x1 y1 x2 y2 confidence class, pixels of the original image.
            labels: (M, 5) class x1 y1 x2 y2, same frame.

        Returns:
            (N, 10) bool: which detections are right at IoU 0.50 to 0.95.
        """
        record = ImageRecord.of(detections, labels)
        self.records.append(record)
        return torch.from_numpy(record.right).to(detections.device)

    def compute(self) -> MetricResult:
        """Totals over all images so far."""
        correct = np.concatenate([np.zeros((0, len(IOU_THRESHOLDS)), bool), *(record.right for record in self.records)])
        per_image = np.zeros((len(self.records), self.nc), int)
        for row, record in zip(per_image, self.records, strict=True):
            row += np.bincount(record.labels[:, 0].astype(int), minlength=self.nc)
        instances = per_image.sum(0)
        counts = {"instances": instances, "images_with_class": (per_image > 0).sum(0), "images": len(self.records)}
        if not correct.any():
            labelled = np.flatnonzero(instances)
            none, no_ap = np.zeros(len(labelled)), np.zeros((len(labelled), len(IOU_THRESHOLDS)))
            zeros = dict.fromkeys(("mp", "mr", "map50", "map"), 0.0)
            return MetricResult(
                none, none, none, no_ap, labelled, **zeros, maps=np.zeros(self.nc), **counts, curves=None
            )
        confidence, predicted = np.concatenate([record.detections[:, 4:6] for record in self.records]).T
        target_classes = np.repeat(np.arange(self.nc), instances)
        curves = precision_recall(correct, confidence, predicted, target_classes, rule=COCO)
        p, r, f1 = (curve[:, curves.best] for curve in (curves.p, curves.r, curves.f1))
        mean_ap = float(curves.ap.mean())
        maps = np.full(self.nc, mean_ap)
        maps[curves.classes] = curves.ap.mean(1)
        return MetricResult(
            p,
            r,
            f1,
            curves.ap,
            curves.classes,
            mp=float(p.mean()),
            mr=float(r.mean()),
            map50=float(curves.ap[:, 0].mean()),
            map=mean_ap,
            maps=maps,
            **counts,
            curves=curves,
        )
