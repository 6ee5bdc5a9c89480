"""Detection metrics: matching detections with labels, average precision, and the totals of a validation run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

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
    "precision_recall",
    "process_batch",
    "smooth",
]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
FITNESS_WEIGHTS = (0.0, 0.0, 0.1, 0.9)  # of precision, recall, mAP50, mAP50-95
CURVE_POINTS = 1000
RECALL_POINTS = np.linspace(0, 1, 101)


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


# Average precision ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall of each class that has labels, ``K`` of them.

    Attributes:
        classes: (K,) class indices.
        labels: (K,) number of labels.
        ap: (K, T) average precision at each IoU threshold.
        confidence: (1000,) confidences from 0 to 1: the abscissa of the next three.
        p: (K, 1000) precision at the first IoU threshold.
        r: (K, 1000) recall.
        f1: (K, 1000) their harmonic mean.
        recall: (1000,) recalls from 0 to 1: the abscissa of ``p_of_recall``.
        p_of_recall: (K, 1000) precision envelope.
        best: index into ``confidence`` where the smoothed mean F1 is largest.
    """

    classes: np.ndarray
    labels: np.ndarray
    ap: np.ndarray
    confidence: np.ndarray
    p: np.ndarray
    r: np.ndarray
    f1: np.ndarray
    recall: np.ndarray
    p_of_recall: np.ndarray
    best: int


def precision_recall(
    tp: np.ndarray, conf: np.ndarray, pred_cls: np.ndarray, target_cls: np.ndarray, eps: float = 1e-16
) -> PrecisionRecall:
    """Work out precision, recall and average precision per class.

    Args:
        tp: (N, T) bool, which detections are right at each IoU threshold.
        conf: (N,) confidences.
        pred_cls: (N,) predicted classes.
        target_cls: (M,) classes of all labels.
        eps: keeps divisions finite.
    """
    order = np.argsort(-conf, kind="stable")
    tp, conf, pred_cls = tp[order], conf[order], pred_cls[order]
    classes, label_counts = np.unique(target_cls, return_counts=True)

    axis = np.linspace(0, 1, CURVE_POINTS)
    p, r, p_of_recall = (np.zeros((len(classes), CURVE_POINTS)) for _ in range(3))
    ap = np.zeros((len(classes), tp.shape[1]))
    for index, (kind, label_count) in enumerate(zip(classes, label_counts, strict=True)):
        mine = pred_cls == kind
        right = tp[mine].cumsum(0)  # (n, T): right ones so far, from the most confident down
        if not len(right):
            continue
        recall = right / (label_count + eps)
        precision = right / np.arange(1, len(right) + 1)[:, None]
        # Confidences fall, and np.interp wants a rising abscissa: mirror both. Nothing is found above the first one.
        r[index] = np.interp(-axis, -conf[mine], recall[:, 0], left=0)
        p[index] = np.interp(-axis, -conf[mine], precision[:, 0], left=1)
        for threshold in range(tp.shape[1]):
            ap[index, threshold], envelope, reached = compute_ap(recall[:, threshold], precision[:, threshold])
            if threshold == 0:
                p_of_recall[index] = np.interp(axis, reached, envelope)
    f1 = 2 * p * r / (p + r + eps)
    best = int(smooth(f1.mean(0)).argmax()) if len(classes) else 0
    return PrecisionRecall(classes.astype(int), label_counts, ap, axis, p, r, f1, axis, p_of_recall, best)


def compute_ap(recall: np.ndarray, precision: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Area under a precision-recall curve, from 101 equally spaced recalls by the trapezoid rule.

    Args:
        recall: (n,) rising.
        precision: (n,).

    Returns:
        The area; the precision envelope (n + 2,), never rising; the recalls it belongs to, from 0 to 1.
    """
    reached = np.concatenate([[0.0], recall, [1.0]])
    envelope = np.concatenate([[1.0], precision, [0.0]])
    envelope = np.maximum.accumulate(envelope[::-1])[::-1]
    heights = np.interp(RECALL_POINTS, reached, envelope)
    return float((heights[1:] + heights[:-1]).mean() / 2), envelope, reached


def smooth(curve: np.ndarray, fraction: float = 0.1) -> np.ndarray:
    """Moving average of the same length; the ends are repeated beyond the curve.

    Args:
        curve: (n,).
        fraction: width of the window as a share of n; made odd.
    """
    half = round(len(curve) * fraction * 2) // 2 // 2
    padded = np.pad(curve, half, mode="edge")
    return np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")


def ap_per_class(
    tp: np.ndarray,
    conf: np.ndarray,
    pred_cls: np.ndarray,
    target_cls: np.ndarray,
    plot: bool = False,
    save_dir: str | Path = ".",
    names: Mapping[int, str] | Sequence[str] = (),
    eps: float = 1e-16,
    prefix: str = "",
) -> tuple[np.ndarray, ...]:
    """Precision, recall, F1 and average precision of each class that has labels.

    Args:
        tp: (N, T) bool, which detections are right at each IoU threshold.
        conf: (N,) confidences.
        pred_cls: (N,) predicted classes.
        target_cls: (M,) classes of all labels.
        plot: also draw the curves.
        save_dir: folder for the drawings.
        names: class names.
        eps: keeps divisions finite.
        prefix: goes before the drawings' file names.

    Returns:
        True positives, false positives, precision, recall, F1, (K,) each and read at the confidence where the smoothed
        mean F1 is largest; average precision (K, T); class indices (K,).
    """
    curves = precision_recall(tp, conf, pred_cls, target_cls, eps)
    if plot:
        plot_curves(curves, names, save_dir, prefix)
    p, r, f1 = (curve[:, curves.best] for curve in (curves.p, curves.r, curves.f1))
    right = (r * curves.labels).round()
    wrong = (right / (p + eps) - right).round()
    return right, wrong, p, r, f1, curves.ap, curves.classes


def plot_curves(
    curves: PrecisionRecall, names: Mapping[int, str] | Sequence[str], save_dir: str | Path, prefix: str = ""
) -> None:
    """Draw ``PR_curve.png``, ``F1_curve.png``, ``P_curve.png`` and ``R_curve.png``.

    Args:
        curves: what to draw.
        names: class names by index; only those with labels appear.
        save_dir: an existing folder.
        prefix: goes before the file names.
    """
    from utils.charts import plot_curve, plot_pr  # noqa: PLC0415 - matplotlib is loaded only when something is drawn

    folder = Path(save_dir)
    known = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
    shown = {row: known.get(int(kind), str(kind)) for row, kind in enumerate(curves.classes)}
    plot_pr(curves.recall, curves.p_of_recall, curves.ap, shown, folder / f"{prefix}PR_curve.png")
    best = float(curves.confidence[curves.best])  # where P and R are reported; the other two mark their own maximum
    for letter, rows, title, mark in (
        ("F1", curves.f1, "F1", best),
        ("P", curves.p, "Precision", None),
        ("R", curves.r, "Recall", None),
    ):
        plot_curve(curves.confidence, rows, shown, folder / f"{prefix}{letter}_curve.png", "Confidence", title, mark)


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
