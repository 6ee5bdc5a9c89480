"""Detection metrics: matching detections with labels, fitness, and the totals of a validation run.

Average precision is in ``average_precision.py``, the confusion matrix in ``confusion.py``; both can be imported from
here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from utils.average_precision import PrecisionRecall, ap_per_class, compute_ap, plot_curves, precision_recall, smooth
from utils.boxes import bbox_ioa, bbox_iou, box_iou
from utils.confusion import ConfusionMatrix

__all__ = [
    "IOU_THRESHOLDS",
    "ConfusionMatrix",
    "DetectionMetrics",
    "MetricResult",
    "PrecisionRecall",
    "ap_per_class",
    "bbox_ioa",
    "bbox_iou",
    "box_iou",
    "compute_ap",
    "fitness",
    "match_predictions",
    "plot_curves",
    "precision_recall",
    "process_batch",
    "smooth",
]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
FITNESS_WEIGHTS = (0.0, 0.0, 0.1, 0.9)  # of precision, recall, mAP50, mAP50-95


# Matching ------------------------------------------------------------------------------------------------------------


def process_batch(detections: torch.Tensor, labels: torch.Tensor, iouv: torch.Tensor) -> torch.Tensor:
    """Decide which detections are right, by the rule of YOLOv5.

    Each detection claims the label of its class that it overlaps most; of a label's claimants at a threshold the
    first one is right. A claimant that comes too late does not try another label; :func:`match_predictions` lets it.

    Args:
        detections: (N, 6) x1 y1 x2 y2 confidence class, most confident first.
        labels: (M, 5) class x1 y1 x2 y2, same frame.
        iouv: (T,) IoU thresholds.

    Returns:
        (N, T) bool on the detections' device.
    """
    correct = torch.zeros(len(detections), len(iouv), dtype=torch.bool, device=detections.device)
    if len(detections) == 0 or len(labels) == 0:
        return correct
    same_class = detections[:, None, 5] == labels[None, :, 0]  # (N, M)
    overlap = box_iou(detections[:, :4], labels[:, 1:5]).masked_fill(~same_class, -1.0)
    best, choice = overlap.max(1)  # (N,)
    passes = best[:, None] >= iouv.to(best)  # (N, T)
    claims = torch.nn.functional.one_hot(choice, len(labels)).bool()[:, :, None] & passes[:, None]  # (N, M, T)
    first = claims & (claims.cumsum(0) == 1)
    return first.any(1)


def match_predictions(
    detections: torch.Tensor, labels: torch.Tensor, iouv: torch.Tensor | np.ndarray = IOU_THRESHOLDS
) -> torch.Tensor:
    """Decide which detections are right, by the rule of COCO.

    At each threshold the detections choose in order of confidence; each takes the label of its class that it overlaps
    most among those still free. Of two labels it overlaps equally it takes the later one.

    Args:
        detections: (N, 6) x1 y1 x2 y2 confidence class, in any order.
        labels: (M, 5) class x1 y1 x2 y2, same frame.
        iouv: (T,) IoU thresholds.

    Returns:
        (N, T) bool on the detections' device, in the order of ``detections``.
    """
    # Rounded, as 0.8 in float32 lies above the IoU of two boxes that is 0.8 in float64.
    thresholds = np.asarray(iouv.cpu() if isinstance(iouv, torch.Tensor) else iouv, np.float64).round(6)
    correct = np.zeros((len(detections), len(thresholds)), bool)
    if len(detections) and len(labels):
        found, wanted = detections.detach().cpu().double(), labels.detach().cpu().double()
        overlap = box_iou(found[:, :4], wanted[:, 1:5], eps=0).nan_to_num(0.0)
        overlap = overlap.where(found[:, None, 5] == wanted[None, :, 0], 0.0).numpy()[:, ::-1]  # later labels first
        order = np.argsort(-found[:, 4].numpy(), kind="stable")
        order = order[overlap.max(1)[order] >= thresholds.min()]  # most detections touch no label of their class
        _claim_in_turn(overlap, order, thresholds, correct)
    return torch.from_numpy(correct).to(detections.device)


def _claim_in_turn(overlap: np.ndarray, order: np.ndarray, thresholds: np.ndarray, correct: np.ndarray) -> None:
    """Let detections take their best free label, one after the other, at all thresholds at once; fills ``correct``."""
    free = np.ones((len(thresholds), overlap.shape[1]), bool)
    every_threshold = np.arange(len(thresholds))
    for detection in order:
        offers = np.where(free, overlap[detection], 0.0)  # (T, M)
        choice = offers.argmax(1)
        hit = offers[every_threshold, choice] >= thresholds
        free[every_threshold[hit], choice[hit]] = False
        correct[detection] = hit


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
    """Collects detections and labels image by image; matching follows COCO's rule.

    Args:
        nc: number of classes.
        names: class names, kept for callers that draw or print.
    """

    def __init__(self, nc: int, names: Mapping[int, str] | Sequence[str] = ()):
        self.nc = nc
        self.names = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
        self.reset()

    def reset(self) -> None:
        """Forget everything collected."""
        self.images = 0
        self.instances = np.zeros(self.nc, int)
        self.images_with_class = np.zeros(self.nc, int)
        self._correct: list[np.ndarray] = []
        self._confidence: list[np.ndarray] = []
        self._predicted: list[np.ndarray] = []

    def update(self, detections: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Add one image.

        Args:
            detections: (N, 6) x1 y1 x2 y2 confidence class, pixels of the original image.
            labels: (M, 5) class x1 y1 x2 y2, same frame.

        Returns:
            (N, 10) bool: which detections are right at IoU 0.50 to 0.95.
        """
        correct = match_predictions(detections, labels)
        found = detections.detach().cpu().float().numpy()
        counts = np.bincount(labels[:, 0].detach().cpu().numpy().astype(int), minlength=self.nc)
        self.images += 1
        self.instances += counts
        self.images_with_class += counts > 0
        self._correct.append(correct.cpu().numpy())
        self._confidence.append(found[:, 4])
        self._predicted.append(found[:, 5])
        return correct

    def compute(self) -> MetricResult:
        """Totals over all images so far."""
        correct = np.concatenate([np.zeros((0, len(IOU_THRESHOLDS)), bool), *self._correct])
        target_classes = np.repeat(np.arange(self.nc), self.instances)
        labelled = np.flatnonzero(self.instances)
        counts = {
            "instances": self.instances.copy(),
            "images_with_class": self.images_with_class.copy(),
            "images": self.images,
        }
        if not correct.any():
            none, no_ap = np.zeros(len(labelled)), np.zeros((len(labelled), len(IOU_THRESHOLDS)))
            zeros = dict.fromkeys(("mp", "mr", "map50", "map"), 0.0)
            return MetricResult(
                none, none, none, no_ap, labelled, **zeros, maps=np.zeros(self.nc), **counts, curves=None
            )
        confidence, predicted = np.concatenate(self._confidence), np.concatenate(self._predicted)
        curves = precision_recall(correct, confidence, predicted, target_classes)
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
